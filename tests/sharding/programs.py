"""Log-probabilities as users write them for meshes with Auto and with Explicit axes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, auto_axes, reshard
from jax.sharding import PartitionSpec as P

from fishjax.models import DecoderConfig, decoder_apply_fn, init_params

# No activation has as many elements as a per-example gradient, on one device or on all.
N, T, V, D, F, LAYERS = 16, 11, 40, 24, 48, 2
MESHES = dict(batch=((8,), ("data",)), tensor=((4, 2), ("data", "model")), fsdp=((8,), ("data",)))


class Setup(NamedTuple):
    """How a program is spread: `kind` is "none" (one device), "Auto" or "Explicit"."""

    kind: str = "none"
    layout: str = "batch"

    @property
    def mesh(self):
        sizes, axes = MESHES[self.layout]
        return jax.make_mesh(sizes, axes, axis_types=(getattr(AxisType, self.kind),) * len(axes))

    def model(self):
        return "model" if self.layout == "tensor" else None

    def weights(self, params):
        """FSDP: weights are gathered where they are used."""
        if self.layout != "fsdp" or self.kind == "none":
            return params
        place = reshard if self.kind == "Explicit" else jax.lax.with_sharding_constraint
        return jax.tree.map(lambda w: place(w, P()), params)

    def lookup(self, table, ids):
        if self.kind == "Explicit":
            return table.at[ids].get(out_sharding=P("data", None, None))
        return self.place(table[ids], None)

    def dot(self, x, weight, axis):
        if self.kind == "Explicit":
            return jnp.einsum("nti,io->nto", x, weight, out_sharding=P("data", None, axis))
        return self.place(x @ weight, axis)

    def place(self, x, axis):
        if self.kind == "none":
            return x
        return jax.lax.with_sharding_constraint(x, P("data", None, axis))


class Program(NamedTuple):
    log_prob: Any
    apply: Any  # [N, 3] outputs
    params: Any
    specs: Any
    batch: Any


def next_token(logits, ids):
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    return jnp.take_along_axis(log_probs, ids[:, 1:, None], -1)[..., 0].sum(-1)


def tokens(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape), jnp.int32)


def mlp(setup, length=T, width=D, hidden=F):
    """Embedding, unrolled blocks, untied head; hand-written for the mesh."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) / math.sqrt(shape[0]))

    blocks = [
        dict(up=normal(width, hidden), bias=normal(hidden), down=normal(hidden, width))
        for _ in range(LAYERS)
    ]
    params = dict(
        embedding=normal(V, width), blocks=blocks, scale=1 + normal(width), head=normal(width, V)
    )

    def logits(params, ids):
        if setup.kind == "Explicit":  # on Auto axes the constraints on activations say enough
            params = setup.weights(params)
        h = setup.lookup(params["embedding"], ids)
        for block in params["blocks"]:
            up = jax.nn.relu(setup.dot(h, block["up"], setup.model()) + block["bias"])
            h = h + setup.dot(up, block["down"], None)
        return setup.dot(h * params["scale"], params["head"], None)

    model = setup.model()
    block = dict(up=P(None, model), bias=P(model), down=P(model, None))
    specs = dict(embedding=P(None, model), blocks=[block] * LAYERS, scale=P(), head=P(None, model))
    if setup.layout == "fsdp":
        specs = jax.tree.map(lambda leaf: P("data"), params)
    return Program(
        lambda p, ids: next_token(logits(p, ids), ids),
        lambda p, ids: jnp.tanh(logits(p, ids)[:, -1, :3]),
        params,
        specs,
        tokens(N, length),
    )


def long_mlp(setup):
    """Many tokens for its width: gradients of the dense layers are materialised."""
    return mlp(setup, length=60, width=8, hidden=16)


def decoder(setup):
    """The library's decoder, scanned and tied; on Explicit axes in the user's `auto_axes`."""
    config = DecoderConfig(
        vocab_size=V, width=D, hidden_width=F, num_layers=LAYERS, num_heads=4, num_kv_heads=2,
        context_length=T, tied=True, dtype="float64",
    )  # fmt: skip
    apply_fn = decoder_apply_fn(config)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), init_params(config, jax.random.key(0)))
    inner = setup._replace(kind="Auto" if setup.kind == "Explicit" else setup.kind)

    def on_auto(fn):
        return auto_axes(fn, out_sharding=P("data")) if setup.kind == "Explicit" else fn

    def log_prob(params, ids):
        return next_token(apply_fn(inner.weights(params), ids), ids)

    def outputs(params, ids):
        return jnp.tanh(apply_fn(inner.weights(params), ids)[:, -1, :3])

    return Program(
        on_auto(log_prob), on_auto(outputs), params, _decoder_specs(setup, params), tokens(N, T)
    )


def _decoder_specs(setup, params):
    if setup.layout == "fsdp":
        stacked = jax.tree.map(lambda leaf: P(None, "data"), params["layers"])
        stacked["attention"]["output"] = P(None, None, None, "data")
        return dict(embedding=P(None, "data"), final_norm=P("data"), layers=stacked)
    m = setup.model()
    heads = P(None, None, m, None)
    attention = dict(query=heads, key=heads, value=heads, output=P(None, m, None, None))
    gated = dict(gate=P(None, None, m), up=P(None, None, m), down=P(None, m, None))
    layers = dict(attention=attention, mlp=gated, attention_norm=P(), mlp_norm=P())
    return dict(embedding=P(m, None), final_norm=P(), layers=layers)


PROGRAMS = dict(mlp=mlp, long_mlp=long_mlp, decoder=decoder)
