"""The table of models in Equinox: modules of one example, vmapped over the batch."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from . import table
from .table import CLASSES, EXPERTS, HEADS, LAYERS, D, T, V

eqx = pytest.importorskip("equinox", exc_type=ImportError)

CASES, case = table.registry()
KEY = jax.random.key(0)
nn = eqx.nn


def built(make, call, batch):
    """The case of `call(layers, example) -> scalar` with `make(**key)` giving the layers."""
    shapes = eqx.filter_eval_shape(lambda key: make(key=key), KEY)
    params, static = eqx.partition(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct))

    def fn(params, batch):
        model = eqx.combine(params, static)
        return jax.vmap(lambda example: call(model, example))(batch)

    return fn, table.drawn(params), batch


def log_prob(logits, example):
    return table.log_softmax(logits)[example["label"]]


def next_tokens(logits, ids):
    log_probs = table.log_softmax(logits[:-1])
    return jnp.take_along_axis(log_probs, ids[1:, None], -1).sum()


def classified(make, features, batch, width=D):
    """A model that classifies `features(layers, x)`."""
    return built(
        lambda key: dict(make(key=key), head=nn.Linear(width, CLASSES, key=key)),
        lambda m, example: log_prob(m["head"](features(m, example["x"])), example),
        batch,
    )


@case
def mlp():
    make = lambda key: dict(mlp=nn.MLP(D, D, D + 1, 1, final_activation=jax.nn.relu, key=key))  # noqa: E731
    return classified(make, lambda m, x: m["mlp"](x), table.vectors())


@case
def cnn():
    def make(key):
        same = dict(padding="SAME", key=key)
        return dict(
            layers=[
                nn.Conv2d(2, 4, 3, stride=(2, 1), use_bias=False, **same),
                nn.Conv2d(4, 4, 3, dilation=(1, 2), **same),
                nn.Conv2d(4, 8, 3, groups=4, **same),
                nn.Conv2d(8, 4, 2, groups=2, padding="SAME", padding_mode="CIRCULAR", key=key),
            ],
            transposed=nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2, key=key),
        )

    def features(m, x):
        x = jnp.moveaxis(x, -1, 0)
        for layer in m["layers"]:
            x = jnp.tanh(layer(x))
        return nn.MaxPool2d(2, 2)(m["transposed"](x)).mean((1, 2))

    return classified(make, features, table.images())


class ResidualBlock(eqx.Module):
    norms: list
    first: eqx.Module
    second: eqx.Module
    short: eqx.Module

    def __init__(self, key):
        self.norms = [nn.GroupNorm(2, 4) for _ in range(2)]
        self.first = nn.Conv2d(4, 4, 3, 2, "SAME", use_bias=False, key=key)
        self.second = nn.Conv2d(4, 4, 3, 1, "SAME", use_bias=False, key=key)
        self.short = nn.Conv2d(4, 4, 1, 2, use_bias=False, key=key)

    def __call__(self, x):
        x = jax.nn.silu(self.norms[0](x))
        return self.short(x) + self.second(jax.nn.silu(self.norms[1](self.first(x))))


@case
def resnet():
    def make(key):
        stem = nn.Conv2d(2, 4, 3, padding="SAME", use_bias=False, key=key)
        return dict(stem=stem, blocks=[ResidualBlock(key) for _ in range(LAYERS)])

    def features(m, x):
        x = m["stem"](jnp.moveaxis(x, -1, 0))
        for block in m["blocks"]:
            x = block(x)
        return x.mean((1, 2))

    return classified(make, features, table.images())


def recurrent(cell, start):
    def make(key):
        return dict(cells=[cell(D, D, key=key) for _ in range(2)])

    def features(m, x):
        for layer in m["cells"]:

            def step(carry, x_t, layer=layer):
                carry = layer(x_t, carry)
                return carry, jax.tree.leaves(carry)[0]

            _, x = lax.scan(step, start(x), x)
        return x[-1]

    return classified(make, features, table.sequences())


@case
def lstm():
    return recurrent(nn.LSTMCell, lambda x: (jnp.zeros(D, x.dtype), jnp.zeros(D, x.dtype)))


@case
def gru():
    return recurrent(nn.GRUCell, lambda x: jnp.zeros(D, x.dtype))


class Block(eqx.Module):
    """A pre-norm transformer block."""

    norm: eqx.Module
    attention: eqx.Module
    norm2: eqx.Module
    mlp: eqx.Module

    def __init__(self, key):
        self.norm, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        biases = dict(use_query_bias=True, use_output_bias=True)
        self.attention = nn.MultiheadAttention(HEADS, D, **biases, key=key)
        self.mlp = nn.MLP(D, D, 2 * D, 1, jax.nn.gelu, key=key)

    def __call__(self, h, mask):
        x = jax.vmap(self.norm)(h)
        h = h + self.attention(x, x, x, mask)
        return h + jax.vmap(self.mlp)(jax.vmap(self.norm2)(h))


@case
def encoder():
    def make(key):
        return dict(
            embed=nn.Embedding(V, D, key=key),
            positions=jnp.zeros((T, D)),
            layers=[Block(key) for _ in range(LAYERS)],
            norm=nn.LayerNorm(D),
            head=nn.Linear(D, CLASSES, key=key),
        )

    def call(m, example):
        keep = example["ids"] > 0
        h = jax.vmap(m["embed"])(example["ids"]) + m["positions"]
        for layer in m["layers"]:
            h = layer(h, jnp.broadcast_to(keep, (T, T)))
        return log_prob(m["head"](m["norm"](h[0])), example)

    return built(make, call, table.sentences())


CAUSAL = jnp.tril(jnp.ones((T, T), bool))


def decode(make_layers, run_layers):
    def make(key):
        embedding = nn.Embedding(V, D, key=key)
        head = nn.Linear(D, V, use_bias=False, key=key)
        tied = nn.Shared((embedding, head), lambda m: m[1].weight, lambda m: m[0].weight)
        return dict(
            tied=tied,
            positions=nn.Embedding(8, D, key=key),
            layers=make_layers(key),
            norm=nn.RMSNorm(D),
        )

    def call(m, example):
        ids = example["ids"]
        embed, head = m["tied"]()
        h = jax.vmap(embed)(ids) + jax.vmap(m["positions"])(jnp.arange(T))
        h = run_layers(m["layers"], h)
        return next_tokens(jax.vmap(lambda row: head(m["norm"](row)))(h), ids)

    return built(make, call, table.sentences())


@case
def decoder():
    def run(layers, h):
        for layer in layers:
            h = layer(h, CAUSAL)
        return h

    return decode(lambda key: [Block(key) for _ in range(LAYERS)], run)


def scanned(wrap):
    def make(key):
        return eqx.filter_vmap(Block)(jax.random.split(key, LAYERS))

    def run(layers, h):
        arrays, static = eqx.partition(layers, lambda x: hasattr(x, "dtype"))

        def step(h, arrays):
            return wrap(lambda h, layer: layer(h, CAUSAL))(h, eqx.combine(arrays, static)), None

        return lax.scan(step, h, arrays)[0]

    return decode(make, run)


@case
def decoder_scan():
    return scanned(lambda f: f)


@case
def decoder_scan_checkpoint():
    return scanned(eqx.filter_checkpoint)


@case
def encoder_decoder():
    def make(key):
        return dict(
            embed=nn.Embedding(V, D, key=key),
            positions=jnp.zeros((T, D)),
            encoder=Block(key),
            norms=[nn.LayerNorm(D) for _ in range(2)],
            attention=nn.MultiheadAttention(HEADS, D, key=key),
            cross=nn.MultiheadAttention(HEADS, D, key=key),
        )

    def call(m, example):
        embed, target = jax.vmap(m["embed"]), example["target"]
        memory = m["encoder"](embed(example["source"]), None)
        h = embed(target) + m["positions"]
        x = jax.vmap(m["norms"][0])(h)
        h = h + m["attention"](x, x, x, CAUSAL)
        h = h + m["cross"](jax.vmap(m["norms"][1])(h), memory, memory)
        return next_tokens(h @ m["embed"].weight.T, target)

    return built(make, call, table.pairs())


@case
def mixture_soft():
    """Experts are a vmapped MLP."""

    def make(key):
        keys = jax.random.split(key, EXPERTS)
        return dict(
            router=nn.Linear(D, EXPERTS, use_bias=False, key=key),
            experts=eqx.filter_vmap(lambda key: nn.MLP(D, D, 5, 1, jnp.tanh, key=key))(keys),
        )

    def features(m, x):
        gate = jax.nn.softmax(jax.vmap(m["router"])(x))
        one = lambda expert: jax.vmap(expert)(x)  # noqa: E731
        return jnp.einsum("etd,te->d", eqx.filter_vmap(one)(m["experts"]), gate)

    return classified(make, features, table.sequences())


@case
def mixture_top1():
    def make(key):
        return dict(
            router=nn.Linear(D, EXPERTS, use_bias=False, key=key),
            inner=jnp.zeros((EXPERTS, D, 5)),
            outer=jnp.zeros((EXPERTS, 5, D)),
        )

    def features(m, x):
        gate = table.one_expert(jax.nn.softmax(jax.vmap(m["router"])(x)))
        hidden = jnp.tanh(jnp.einsum("td,edf->tef", x, m["inner"]))
        return jnp.einsum("tef,efd,te->d", hidden, m["outer"], gate)

    return classified(make, features, table.sequences())


@case
def weight_norm():
    def make(key):
        return dict(
            first=nn.WeightNorm(nn.Linear(D, D + 1, key=key)),
            act=nn.PReLU(0.25),
            second=nn.WeightNorm(nn.Linear(D + 1, D, key=key), axis=None),
        )

    return classified(make, lambda m, x: m["second"](m["act"](m["first"](x))), table.vectors())


@case
def norms():
    def make(key):
        return dict(
            dense=nn.Linear(D, 2 * D, key=key),
            rms=nn.RMSNorm(2 * D),
            group=nn.GroupNorm(2, 2 * D),
            layer=nn.LayerNorm(2 * D, use_bias=False),
        )

    def features(m, x):
        h = jax.vmap(lambda row: m["rms"](m["dense"](row)))(x)
        return jax.vmap(m["layer"])(jnp.tanh(m["group"](h.T)).T).max(0)

    return classified(make, features, table.sequences(), width=2 * D)


@case
def embedding_one_hot():
    def make(key):
        return dict(embed=nn.Linear(V, D, use_bias=False, key=key), head=nn.Linear(D, V, key=key))

    def call(m, example):
        ids = example["ids"]
        one_hot = jax.nn.one_hot(ids, V)
        return next_tokens(jax.vmap(lambda x: m["head"](jnp.tanh(m["embed"](x))))(one_hot), ids)

    return built(make, call, table.sentences())
