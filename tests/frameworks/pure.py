"""The table of models as hand-written functions of a dictionary of arrays."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from . import table
from .table import CLASSES, EXPERTS, HEADS, LAYERS, D, T, V, class_log_prob, next_log_prob

CASES, case = table.registry()


def built(fn, shapes, batch):
    """The case of `fn` with parameters drawn for a tree of shapes."""
    is_shape = lambda s: isinstance(s, tuple)  # noqa: E731
    specs = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, "float32"), shapes, is_leaf=is_shape)
    return fn, table.drawn(specs), batch


def dense(p, x):
    return x @ p["w"] + p["b"]


def dense_shapes(inputs, outputs):
    return dict(w=(inputs, outputs), b=(outputs,))


@case
def mlp():
    def fn(p, batch):
        h = batch["x"]
        for layer in p["layers"]:
            h = jax.nn.relu(dense(layer, h))
        return class_log_prob(dense(p["head"], h), batch)

    layers = [dense_shapes(D, D + 1), dense_shapes(D + 1, D)]
    return built(fn, dict(layers=layers, head=dense_shapes(D, CLASSES)), table.vectors())


convolve = functools.partial(
    lax.conv_general_dilated, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)


@case
def cnn():
    def fn(p, batch):
        h = jnp.tanh(convolve(batch["x"], p["strided"], (2, 1)))
        h = jnp.tanh(convolve(h, p["dilated"], (1, 1), rhs_dilation=(1, 2)) + p["b"])
        h = jnp.tanh(convolve(h, p["depthwise"], (1, 1), feature_group_count=4))
        h = jnp.tanh(convolve(h, p["grouped"], (1, 1), feature_group_count=2))
        h = lax.conv_transpose(
            h, p["transposed"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return class_log_prob(dense(p["head"], h.mean((1, 2))), batch)

    shapes = dict(
        strided=(3, 3, 2, 4), dilated=(3, 3, 4, 4), b=(4,), depthwise=(3, 3, 1, 8),
        grouped=(2, 2, 4, 4), transposed=(2, 2, 4, 3), head=dense_shapes(3, CLASSES),
    )  # fmt: skip
    return built(fn, shapes, table.images())


@case
def convolution_by_channels():
    """Channels first, one spatial axis, explicit padding, kernel reversed."""

    def fn(p, batch):
        x = batch["x"].reshape(-1, 6, 10).swapaxes(1, 2)
        numbers = ("NCW", "OIW", "NCW")
        h = jnp.tanh(lax.conv_general_dilated(x, p["a"], (1,), [(2, 0)], dimension_numbers=numbers))
        h = lax.conv_general_dilated(
            h, jnp.flip(p["b"], 2), (1,), "VALID", rhs_dilation=(2,), dimension_numbers=numbers
        )
        return class_log_prob(h.mean(2), batch)

    return built(fn, dict(a=(4, 10, 3), b=(CLASSES, 4, 2)), table.images())


def group_norm(p, x, groups=2):
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    var = grouped.var((1, 2, 4), keepdims=True)
    return ((grouped - mean) * lax.rsqrt(var + 1e-3)).reshape(x.shape) * p["scale"] + p["b"]


@case
def resnet():
    def fn(p, batch):
        h = convolve(batch["x"], p["stem"], (1, 1))
        for block in p["blocks"]:
            x = jax.nn.silu(group_norm(block["norm"], h))
            y = convolve(x, block["first"], (2, 2))
            y = convolve(jax.nn.silu(group_norm(block["norm2"], y)), block["second"], (1, 1))
            h = convolve(x, block["short"], (2, 2)) + y
        return class_log_prob(dense(p["head"], h.mean((1, 2))), batch)

    norm = dict(scale=(4,), b=(4,))
    block = dict(norm=norm, first=(3, 3, 4, 4), norm2=norm, second=(3, 3, 4, 4), short=(1, 1, 4, 4))
    shapes = dict(stem=(3, 3, 2, 4), blocks=[block] * LAYERS, head=dense_shapes(4, CLASSES))
    return built(fn, shapes, table.images())


@case
def lstm():
    def fn(p, batch):
        def run(cell, x):
            def step(carry, x_t):
                c, h = carry
                gates = x_t @ cell["input"] + h @ cell["hidden"] + cell["b"]
                i, f, g, o = jnp.split(gates, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (c, h), h

            zeros = jnp.zeros((x.shape[0], D), x.dtype)
            return lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))[1].swapaxes(0, 1)

        h = run(p["cells"][1], run(p["cells"][0], batch["x"]))
        return class_log_prob(dense(p["head"], h[:, -1]), batch)

    cell = dict(input=(D, 4 * D), hidden=(D, 4 * D), b=(4 * D,))
    return built(fn, dict(cells=[cell] * 2, head=dense_shapes(D, CLASSES)), table.sequences())


def layer_norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * p["scale"] + p["b"]


def attend(p, x, y, mask):
    q = jnp.einsum("ntd,dhk->nthk", x, p["query"])
    k, v = (jnp.einsum("nsd,dhk->nshk", y, p[name]) for name in ("key", "value"))
    scores = jnp.where(mask, jnp.einsum("nthk,nshk->nhts", q, k), -1e30)
    mixed = jnp.einsum("nhts,nshk->nthk", jax.nn.softmax(scores), v)
    return jnp.einsum("nthk,hkd->ntd", mixed, p["out"])


NORM = dict(scale=(D,), b=(D,))
ATTENTION = {
    **dict.fromkeys(("query", "key", "value"), (D, HEADS, D // HEADS)),
    "out": (HEADS, D // HEADS, D),
}
BLOCK = dict(
    norm=NORM, attention=ATTENTION, norm2=NORM,
    inner=dense_shapes(D, 2 * D), outer=dense_shapes(2 * D, D),
)  # fmt: skip


def block(p, h, mask):
    x = layer_norm(p["norm"], h)
    h = h + attend(p["attention"], x, x, mask)
    return h + dense(p["outer"], jax.nn.gelu(dense(p["inner"], layer_norm(p["norm2"], h))))


def causal(ids):
    return jnp.tril(jnp.ones((ids.shape[1],) * 2, bool))


@case
def encoder():
    def fn(p, batch):
        keep = (batch["ids"] > 0)[:, None, None]
        h = p["embedding"][batch["ids"]] + p["positions"]
        for layer in p["layers"]:
            h = block(layer, h, keep)
        return class_log_prob(dense(p["head"], layer_norm(p["norm"], h)[:, 0]), batch)

    shapes = dict(
        embedding=(V, D), positions=(T, D), layers=[BLOCK] * LAYERS, norm=NORM,
        head=dense_shapes(D, CLASSES),
    )  # fmt: skip
    return built(fn, shapes, table.sentences())


DECODER = dict(embedding=(V, D), positions=(8, D), layers=[BLOCK] * LAYERS, norm=NORM)


def decode(embed):
    def fn(p, batch):
        ids = batch["ids"]
        h = embed(p["embedding"], ids) + p["positions"][jnp.arange(ids.shape[1])]
        for layer in p["layers"]:
            h = block(layer, h, causal(ids))
        return next_log_prob(layer_norm(p["norm"], h) @ p["embedding"].T, ids)

    return built(fn, DECODER, table.sentences())


@case
def decoder():
    return decode(lambda e, ids: e[ids])


@case
def decoder_one_hot():
    return decode(lambda e, ids: jax.nn.one_hot(ids, V, dtype=e.dtype) @ e)


@case
def encoder_decoder():
    def fn(p, batch):
        source, target = batch["source"], batch["target"]
        memory = block(p["encoder"], p["embedding"][source], True)
        h = p["embedding"][target] + p["positions"]
        x = layer_norm(p["norm"], h)
        h = h + attend(p["self"], x, x, causal(target))
        h = h + attend(p["cross"], layer_norm(p["norm2"], h), memory, True)
        return next_log_prob(h @ p["embedding"].T, target)

    shapes = dict(
        embedding=(V, D), positions=(T, D), encoder=BLOCK, norm=NORM, norm2=NORM,
        self=ATTENTION, cross=ATTENTION,
    )  # fmt: skip
    return built(fn, shapes, table.pairs())


EXPERT_SHAPES = dict(
    router=(D, EXPERTS), inner=(EXPERTS, D, 5), outer=(EXPERTS, 5, D), head=dense_shapes(D, CLASSES)
)


def mixture(route):
    def fn(p, batch):
        x = batch["x"]
        gate = route(jax.nn.softmax(x @ p["router"]))
        hidden = jnp.tanh(jnp.einsum("ntd,edf->ntef", x, p["inner"]))
        h = jnp.einsum("ntef,efd,nte->ntd", hidden, p["outer"], gate)
        return class_log_prob(dense(p["head"], h.mean(1)), batch)

    return built(fn, EXPERT_SHAPES, table.sequences())


@case
def mixture_soft():
    return mixture(lambda gate: gate)


@case
def mixture_top1():
    return mixture(table.one_expert)


@case
def mixture_gathered():
    """Top-1 routing by gathering the chosen expert's weights."""

    def fn(p, batch):
        x = batch["x"]
        gate = jax.nn.softmax(x @ p["router"])
        chosen = gate.argmax(-1)
        hidden = jnp.tanh(jnp.einsum("ntd,ntdf->ntf", x, p["inner"][chosen]))
        h = jnp.einsum("ntf,ntfd->ntd", hidden, p["outer"][chosen]) * gate.max(-1, keepdims=True)
        return class_log_prob(dense(p["head"], h.mean(1)), batch)

    return built(fn, EXPERT_SHAPES, table.sequences())
