"""The table of models in Haiku: functions under `hk.transform`."""

import jax
import jax.numpy as jnp
import pytest

from . import table
from .table import CLASSES, EXPERTS, HEADS, LAYERS, D, T, V, class_log_prob, next_log_prob

hk = pytest.importorskip("haiku", exc_type=ImportError)

CASES, case = table.registry()
ZEROS = hk.initializers.Constant(0.0)


def built(call, batch):
    """The case of `call(batch) -> [N]`."""
    model = hk.without_apply_rng(hk.transform(call))
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model.apply, table.drawn(shapes), batch


def classified(features, batch):
    """A model that classifies `features(x)`."""
    return built(lambda b: class_log_prob(hk.Linear(CLASSES)(features(b["x"])), b), batch)


@case
def mlp():
    def features(x):
        return hk.nets.MLP([D + 1, D], activate_final=True)(x)

    return classified(features, table.vectors())


@case
def cnn():
    def features(x):
        x = jnp.tanh(hk.Conv2D(4, 3, stride=(2, 1), with_bias=False)(x))
        x = jnp.tanh(hk.Conv2D(4, 3, rate=(1, 2))(x))
        x = jnp.tanh(hk.DepthwiseConv2D(2, 3)(x))
        x = jnp.tanh(hk.Conv2D(4, 2, feature_group_count=2)(x))
        x = hk.Conv2DTranspose(3, 2, stride=2)(x)
        return hk.MaxPool((2, 2, 1), (2, 2, 1), "VALID")(x).mean((1, 2))

    return classified(features, table.images())


@case
def resnet():
    def features(x):
        x = hk.Conv2D(4, 3, with_bias=False)(x)
        for _ in range(LAYERS):
            x = jax.nn.silu(hk.GroupNorm(2)(x))
            y = hk.Conv2D(4, 3, stride=2, with_bias=False)(x)
            y = hk.Conv2D(4, 3, with_bias=False)(jax.nn.silu(hk.GroupNorm(2)(y)))
            x = hk.Conv2D(4, 1, stride=2, with_bias=False)(x) + y
        return x.mean((1, 2))

    return classified(features, table.images())


@case
def lstm():
    def features(x):
        core = hk.DeepRNN([hk.LSTM(D), hk.LSTM(D)])
        start = jax.tree.map(lambda s: s.astype(x.dtype), core.initial_state(x.shape[0]))
        return hk.dynamic_unroll(core, x.swapaxes(0, 1), start)[0][-1]

    return classified(features, table.sequences())


def attention(q, kv, mask):
    return hk.MultiHeadAttention(HEADS, D // HEADS, w_init=ZEROS)(q, kv, kv, mask)


def norm(x):
    return hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)


def block(h, mask):
    x = norm(h)
    h = h + attention(x, x, mask)
    return h + hk.Linear(D)(jax.nn.gelu(hk.Linear(2 * D)(norm(h))))


def positions(length):
    return hk.get_parameter("positions", (length, D), init=ZEROS)


def causal(ids):
    return jnp.tril(jnp.ones((1, 1, ids.shape[1], ids.shape[1]), bool))


@case
def encoder():
    def call(batch):
        h = hk.Embed(V, D)(batch["ids"]) + positions(T)
        for _ in range(LAYERS):
            h = block(h, (batch["ids"] > 0)[:, None, None])
        return class_log_prob(hk.Linear(CLASSES)(norm(h)[:, 0]), batch)

    return built(call, table.sentences())


def decode(run_layers, lookup_style="ARRAY_INDEX"):
    def call(batch):
        ids = batch["ids"]
        embed = hk.Embed(V, D, lookup_style=lookup_style)
        h = embed(ids) + hk.Embed(8, D)(jnp.arange(ids.shape[1]))
        h = run_layers(h, causal(ids))
        return next_log_prob(norm(h) @ embed.embeddings.T, ids)

    return built(call, table.sentences())


def unrolled(block):
    def run(h, mask):
        for _ in range(LAYERS):
            h = block(h, mask)
        return h

    return run


@case
def decoder():
    return decode(unrolled(block))


@case
def embedding_one_hot():
    return decode(unrolled(lambda h, mask: h + attention(h, h, mask)), "ONE_HOT")


@case
def decoder_remat():
    def rematerialised(h, mask):
        return hk.remat(block)(h, mask)

    return decode(unrolled(rematerialised))


@case
def decoder_layer_stack():
    return decode(lambda h, mask: hk.layer_stack(LAYERS)(lambda h: block(h, mask))(h))


@case
def decoder_layer_stack_remat():
    return decode(lambda h, mask: hk.layer_stack(LAYERS)(hk.remat(lambda h: block(h, mask)))(h))


@case
def shared_layers_scan():
    """`hk.scan` runs one block's weights several times."""

    def run(h, mask):
        shared = hk.to_module(block)()
        if hk.running_init():
            return shared(h, mask)
        return hk.scan(lambda h, _: (shared(h, mask), None), h, None, length=LAYERS)[0]

    return decode(run)


@case
def encoder_decoder():
    def call(batch):
        source, target = batch["source"], batch["target"]
        embed = hk.Embed(V, D)
        memory = block(embed(source), None)
        h = embed(target) + positions(T)
        x = norm(h)
        h = h + attention(x, x, causal(target))
        h = h + attention(norm(h), memory, None)
        return next_log_prob(h @ embed.embeddings.T, target)

    return built(call, table.pairs())


def mixture(route):
    def features(x):
        gate = route(jax.nn.softmax(hk.Linear(EXPERTS, with_bias=False)(x)))
        inner = hk.get_parameter("inner", (EXPERTS, D, 5), init=ZEROS)
        outer = hk.get_parameter("outer", (EXPERTS, 5, D), init=ZEROS)
        hidden = jnp.tanh(jnp.einsum("ntd,edf->ntef", x, inner))
        return jnp.einsum("ntef,efd,nte->nd", hidden, outer, gate)

    return classified(features, table.sequences())


@case
def mixture_soft():
    return mixture(lambda gate: gate)


@case
def mixture_top1():
    return mixture(table.one_expert)


@case
def norms():
    def features(x):
        h = jnp.tanh(hk.Linear(2 * D)(x))
        x = hk.RMSNorm(-1)(h)
        parts = (
            hk.GroupNorm(2)(x[:, :, None])[:, :, 0],
            hk.InstanceNorm(True, True)(h),
            hk.Bias()(x),
        )
        return sum(jnp.tanh(part).mean(1) for part in parts)

    return classified(features, table.sequences())
