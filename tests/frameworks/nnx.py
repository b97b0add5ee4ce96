"""The table of models in Flax NNX.

Only `nnx.Param` variables are parameters; keys, counters and frozen weights stay in the rest.
"""

import jax
import jax.numpy as jnp
from flax import linen, nnx

from . import table
from .table import CLASSES, EXPERTS, HEADS, LAYERS, D, T, V, class_log_prob, next_log_prob

CASES, case = table.registry()


def concrete(state):
    """Random floats, a key for every key, ones for counters."""

    def value(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.ones(leaf.shape, leaf.dtype)

    floating = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating), state)
    random = table.drawn(state)
    return jax.tree.map(
        lambda leaf, is_float, drawn: drawn if is_float else value(leaf), state, floating, random
    )


def built(make, call, batch, trainable=nnx.Param):
    """The case of `call(layers, batch)` with `make(rngs)` giving a dictionary of layers."""
    model = nnx.eval_shape(lambda: nnx.Dict(**make(nnx.Rngs(0))))
    graph, params, rest = nnx.split(model, trainable, ...)

    def fn(params, batch):
        return call(nnx.merge(graph, params, concrete(rest)), batch)

    return fn, concrete(params), batch


def classified(make, features, batch, width=D, **options):
    """A model that classifies `features(layers, x)`."""
    return built(
        lambda rngs: dict(make(rngs), head=nnx.Linear(width, CLASSES, rngs=rngs)),
        lambda m, b: class_log_prob(m.head(features(m, b["x"])), b),
        batch,
        **options,
    )


@case
def mlp():
    def make(rngs):
        return dict(
            first=nnx.Linear(D, D + 1, rngs=rngs),
            drop=nnx.Dropout(0.5, deterministic=True, rngs=rngs),
            second=nnx.Linear(D + 1, D, rngs=rngs),
        )

    def features(m, x):
        return nnx.relu(m.second(m.drop(nnx.relu(m.first(x)))))

    return classified(make, features, table.vectors())


@case
def cnn():
    def make(rngs):
        return dict(
            strided=nnx.Conv(2, 4, (3, 3), strides=(2, 1), use_bias=False, rngs=rngs),
            dilated=nnx.Conv(4, 4, (3, 3), kernel_dilation=(1, 2), rngs=rngs),
            depthwise=nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=rngs),
            grouped=nnx.Conv(
                8, 4, (2, 2), feature_group_count=2, padding="CIRCULAR", rngs=rngs
            ),
            transposed=nnx.ConvTranspose(4, 3, (2, 2), strides=(2, 2), rngs=rngs),
        )  # fmt: skip

    def features(m, x):
        for layer in (m.strided, m.dilated, m.depthwise, m.grouped):
            x = jnp.tanh(layer(x))
        return nnx.max_pool(m.transposed(x), (2, 2), (2, 2)).mean((1, 2))

    return classified(make, features, table.images(), width=3)


class ResidualBlock(nnx.Module):
    def __init__(self, rngs):
        conv = dict(use_bias=False, rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.first = nnx.Conv(4, 4, (3, 3), strides=2, **conv)
        self.norm2 = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), **conv)
        self.short = nnx.Conv(4, 4, (1, 1), strides=2, **conv)

    def __call__(self, x):
        x = nnx.silu(self.norm(x))
        return self.short(x) + self.second(nnx.silu(self.norm2(self.first(x))))


@case
def resnet():
    def make(rngs):
        stem = nnx.Conv(2, 4, (3, 3), use_bias=False, rngs=rngs)
        return dict(stem=stem, blocks=nnx.List([ResidualBlock(rngs) for _ in range(LAYERS)]))

    def features(m, x):
        x = m.stem(x)
        for block in m.blocks:
            x = block(x)
        return x.mean((1, 2))

    return classified(make, features, table.images())


@case
def lstm():
    def make(rngs):
        return {
            name: nnx.RNN(
                nnx.OptimizedLSTMCell(D, D, param_dtype=jnp.result_type(float), rngs=rngs)
            )
            for name in ("first", "second")
        }

    return classified(make, lambda m, x: m.second(m.first(x))[:, -1], table.sequences())


def attend_float64(query, key, value, *, mask=None, **_):
    """The default, `jax.nn.dot_product_attention`, has a float32 softmax whatever its inputs."""
    return linen.dot_product_attention(query, key, value, mask=mask)


def attention(rngs, **options):
    if jax.config.jax_enable_x64:
        options["attention_fn"] = attend_float64
    return nnx.MultiHeadAttention(HEADS, D, decode=False, rngs=rngs, **options)


def embedding(size, rngs):
    return nnx.Embed(size, D, dtype=jnp.result_type(float), rngs=rngs)


class Block(nnx.Module):
    """A pre-norm transformer block."""

    def __init__(self, rngs, **options):
        self.norm = nnx.LayerNorm(D, rngs=rngs)
        self.attention = attention(rngs, **options)
        self.norm2 = nnx.LayerNorm(D, rngs=rngs)
        self.inner = nnx.Linear(D, 2 * D, rngs=rngs)
        self.outer = nnx.Linear(2 * D, D, rngs=rngs)

    def __call__(self, h, mask):
        h = h + self.attention(self.norm(h), mask=mask)
        return h + self.outer(nnx.gelu(self.inner(self.norm2(h))))


@case
def encoder():
    def make(rngs):
        return dict(
            embed=embedding(V, rngs),
            positions=nnx.Param(jnp.zeros((T, D))),
            layers=nnx.List([Block(rngs, normalize_qk=True) for _ in range(LAYERS)]),
            norm=nnx.LayerNorm(D, rngs=rngs),
            head=nnx.Linear(D, CLASSES, rngs=rngs),
        )

    def call(m, batch):
        keep = batch["ids"] > 0
        h = m.embed(batch["ids"]) + m.positions[...]
        for layer in m.layers:
            h = layer(h, nnx.make_attention_mask(keep, keep))
        return class_log_prob(m.head(m.norm(h)[:, 0]), batch)

    return built(make, call, table.sentences())


def decode(make_layers, run_layers):
    def make(rngs):
        return dict(
            embed=embedding(V, rngs),
            positions=embedding(8, rngs),
            layers=make_layers(rngs),
            norm=nnx.RMSNorm(D, rngs=rngs),
        )

    def call(m, batch):
        ids = batch["ids"]
        h = m.embed(ids) + m.positions(jnp.arange(ids.shape[1]))
        h = run_layers(m.layers, h, nnx.make_causal_mask(ids))
        return next_log_prob(m.embed.attend(m.norm(h)), ids)

    return built(make, call, table.sentences())


@case
def decoder():
    def run(layers, h, mask):
        for layer in layers:
            h = layer(h, mask)
        return h

    return decode(lambda rngs: nnx.List([Block(rngs) for _ in range(LAYERS)]), run)


@nnx.split_rngs(splits=LAYERS)
@nnx.vmap(in_axes=(0,), out_axes=0)
def stacked(rngs):
    return Block(rngs)


@case
def decoder_scan():
    def run(layers, h, mask):
        step = nnx.scan(lambda c, layer: layer(c, mask), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return step(h, layers)

    return decode(stacked, run)


@case
def decoder_scan_remat():
    def run(layers, h, mask):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        @nnx.remat
        def step(h, layer):
            return layer(h, mask)

        return step(h, layers)

    return decode(stacked, run)


@case
def encoder_decoder():
    def make(rngs):
        return dict(
            embed=embedding(V, rngs),
            positions=nnx.Param(jnp.zeros((T, D))),
            encoder=Block(rngs),
            norm=nnx.LayerNorm(D, rngs=rngs),
            norm2=nnx.LayerNorm(D, rngs=rngs),
            attention=attention(rngs),
            cross=attention(rngs),
        )

    def call(m, batch):
        source, target = batch["source"], batch["target"]
        memory = m.encoder(m.embed(source), None)
        h = m.embed(target) + m.positions[...]
        h = h + m.attention(m.norm(h), mask=nnx.make_causal_mask(target))
        h = h + m.cross(m.norm2(h), memory)
        return next_log_prob(m.embed.attend(h), target)

    return built(make, call, table.pairs())


@case
def mixture_soft():
    """Experts are a vmapped Linear."""

    def experts(rngs, inputs, outputs):
        make = nnx.vmap(lambda r: nnx.Linear(inputs, outputs, rngs=r), in_axes=0, out_axes=0)
        return nnx.split_rngs(splits=EXPERTS)(make)(rngs)

    def make(rngs):
        return dict(
            router=nnx.Linear(D, EXPERTS, use_bias=False, rngs=rngs),
            inner=experts(rngs, D, 5),
            outer=experts(rngs, 5, D),
        )

    def features(m, x):
        gate = nnx.softmax(m.router(x))
        expert = nnx.vmap(lambda a, b, x: b(jnp.tanh(a(x))), in_axes=(0, 0, None), out_axes=0)
        return jnp.einsum("entd,nte->nd", expert(m.inner, m.outer, x), gate)

    return classified(make, features, table.sequences())


@case
def mixture_top1():
    def make(rngs):
        return dict(
            router=nnx.Linear(D, EXPERTS, use_bias=False, rngs=rngs),
            inner=nnx.Param(jnp.zeros((EXPERTS, D, 5))),
            outer=nnx.Param(jnp.zeros((EXPERTS, 5, D))),
        )

    def features(m, x):
        gate = table.one_expert(nnx.softmax(m.router(x)))
        hidden = jnp.tanh(jnp.einsum("ntd,edf->ntef", x, m.inner[...]))
        return jnp.einsum("ntef,efd,nte->nd", hidden, m.outer[...], gate)

    return classified(make, features, table.sequences())


@case
def einsum_layer():
    def make(rngs):
        return dict(
            split=nnx.Einsum("ntd,dhk->nthk", (D, HEADS, 3), (HEADS, 3), rngs=rngs),
            merge=nnx.Einsum("nthk,hkd->ntd", (HEADS, 3, D), rngs=rngs),
        )

    features = lambda m, x: m.merge(jnp.tanh(m.split(x))).mean(1)  # noqa: E731
    return classified(make, features, table.sequences())


@case
def linear_general():
    def make(rngs):
        return dict(
            split=nnx.LinearGeneral(D, (HEADS, 3), rngs=rngs),
            merge=nnx.LinearGeneral((HEADS, 3), D, axis=(-2, -1), rngs=rngs),
        )

    features = lambda m, x: m.merge(jnp.tanh(m.split(x))).mean(1)  # noqa: E731
    return classified(make, features, table.sequences())


def adapted(trainable):
    def make(rngs):
        base = nnx.Linear(D, D + 1, rngs=rngs)
        return dict(
            lora=nnx.LoRA(D, 2, D + 1, base_module=base, rngs=rngs),
            linear=nnx.LoRALinear(D + 1, D, lora_rank=2, rngs=rngs),
        )

    features = lambda m, x: jnp.tanh(m.linear(jnp.tanh(m.lora(x)))).mean(1)  # noqa: E731
    return classified(make, features, table.sequences(), trainable=trainable)


@case
def lora():
    return adapted(nnx.Param)


@case
def lora_only():
    """Adapters are parameters, the base model is frozen."""
    return adapted(nnx.LoRAParam)


@case
def norms():
    def make(rngs):
        return dict(
            dense=nnx.Linear(D, 2 * D, rngs=rngs),
            rms=nnx.RMSNorm(2 * D, rngs=rngs),
            group=nnx.GroupNorm(2 * D, num_groups=2, rngs=rngs),
            instance=nnx.InstanceNorm(2 * D, rngs=rngs),
            layer=nnx.LayerNorm(2 * D, use_bias=False, rngs=rngs),
        )

    def features(m, x):
        h = jnp.tanh(m.dense(x))
        x = m.rms(h)
        return sum(jnp.tanh(part).mean(1) for part in (m.group(x), m.instance(h), m.layer(x)))

    return classified(make, features, table.sequences(), width=2 * D)


@case
def embedding_one_hot():
    def make(rngs):
        return dict(
            embed=nnx.Linear(V, D, use_bias=False, rngs=rngs), head=nnx.Linear(D, V, rngs=rngs)
        )

    def call(m, batch):
        one_hot = nnx.one_hot(batch["ids"], V, dtype=jnp.result_type(float))
        return next_log_prob(m.head(jnp.tanh(m.embed(one_hot))), batch["ids"])

    return built(make, call, table.sentences())
