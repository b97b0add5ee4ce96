"""Plain decoders for benchmarks: pure functions, unrolled, scanned or rematerialised.

Hand-written, so that what is measured is the engine on a user's own function. `gpt` is the model
of the design's table (layer norms, biases, learned positions, GELU MLP of width 4 d, untied
head); `llama` is harder on the engine (RMSNorm, gated MLP of width 8/3 d, tied embeddings).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Size:
    """One row of the benchmark."""

    architecture: str  # "gpt" or "llama"
    layers: int
    width: int
    vocabulary: int
    length: int
    batch: int
    control: str = "unrolled"  # or "scan", "scan+remat"
    head_width: int = 64

    @property
    def hidden(self) -> int:
        """Width of the MLP: 4 d, or 8/3 d rounded up to a multiple of 32."""
        if self.architecture == "gpt":
            return 4 * self.width
        return -(-8 * self.width // 3 // 32) * 32

    @property
    def name(self) -> str:
        """Architecture, layers, width, vocabulary, tokens, batch, control flow."""
        sizes = (self.layers, self.width, self.vocabulary, self.length, self.batch)
        return f"{self.architecture} {'-'.join(map(str, sizes))} {self.control}"


def _layer_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    d, f, h, k = size.width, size.hidden, size.width // size.head_width, size.head_width
    shapes: dict[str, tuple[int, ...]] = dict(
        query=(d, h, k), key=(d, h, k), value=(d, h, k), output=(h, k, d), up=(d, f), down=(f, d)
    )
    if size.architecture == "llama":
        return {**shapes, "gate": (d, f)}
    biases = dict(
        query_bias=(h, k), key_bias=(h, k), value_bias=(h, k), output_bias=(d,),
        up_bias=(f,), down_bias=(d,), attention_shift=(d,), mlp_shift=(d,),
    )  # fmt: skip
    return {**shapes, **biases}


def init(size: Size, key: Array) -> Params:
    """Random float32 parameters; unrolled models have a list of layers, scanned ones a stack."""
    d, vocabulary = size.width, size.vocabulary
    shapes = _layer_shapes(size)
    keys = iter(jax.random.split(key, len(shapes) + 3))

    def normal(*shape: int) -> Array:
        return jax.random.normal(next(keys), shape) / np.sqrt(d)

    stack: Params = {name: normal(size.layers, *shape) for name, shape in shapes.items()}
    stack["attention_norm"] = stack["mlp_norm"] = jnp.ones((size.layers, d))
    layers: Any = stack
    if size.control == "unrolled":
        layers = [jax.tree.map(lambda w, i=i: w[i], stack) for i in range(size.layers)]
    params = dict(embedding=normal(vocabulary, d), layers=layers, final_norm=jnp.ones(d))
    if size.architecture == "gpt":
        params["positions"], params["head"] = normal(size.length, d), normal(d, vocabulary)
        params["final_shift"] = jnp.zeros(d)
    return params


def _norm(x: Array, scale: Array, shift: Array | None) -> Array:
    if shift is None:
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * scale
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) * scale + shift


def _project(spec: str, x: Array, p: Params, name: str) -> Array:
    y = jnp.einsum(spec, x, p[name])
    bias = p.get(f"{name}_bias")
    return y if bias is None else y + bias


def _block(h: Array, p: Params) -> Array:
    length = h.shape[1]
    x = _norm(h, p["attention_norm"], p.get("attention_shift"))
    q, k, v = (_project("ntd,dhk->nthk", x, p, name) for name in ("query", "key", "value"))
    scores = jnp.einsum("nthk,nshk->nhts", q, k) / np.sqrt(q.shape[-1])
    scores = jnp.where(np.tril(np.ones((length, length), bool)), scores, -1e30)
    mixed = jnp.einsum("nhts,nshk->nthk", jax.nn.softmax(scores), v)
    h = h + _project("nthk,hkd->ntd", mixed, p, "output")
    x = _norm(h, p["mlp_norm"], p.get("mlp_shift"))
    up = _project("ntd,df->ntf", x, p, "up")
    inner = jax.nn.silu(x @ p["gate"]) * up if "gate" in p else jax.nn.gelu(up)
    return h + _project("ntf,fd->ntd", inner, p, "down")


def _hidden(size: Size) -> Callable[[Params, Array], Array]:
    """`(params, embedded [N, T, d]) -> [N, T, d]`: what the head reads."""

    def fn(params: Params, h: Array) -> Array:
        if "positions" in params:
            h = h + params["positions"]
        if size.control == "unrolled":
            for layer in params["layers"]:
                h = _block(h, layer)
        else:
            step = lambda h, layer: (_block(h, layer), None)  # noqa: E731
            if size.control == "scan+remat":
                step = jax.checkpoint(step, prevent_cse=False)
            h, _ = jax.lax.scan(step, h, params["layers"])
        return _norm(h, params["final_norm"], params.get("final_shift"))

    return fn


def _head(params: Params, h: Array) -> Array:
    return h @ (params["head"] if "head" in params else params["embedding"].T)


def from_embedded(size: Size) -> Callable[[Params, Array, Array], Array]:
    """`(params, embedded [N, T, d], ids [N, T]) -> [N]`: log-likelihood of each sequence.

    The last position predicts nothing and is left out in front of the head.
    """
    hidden = _hidden(size)

    def fn(params: Params, h: Array, ids: Array) -> Array:
        log_probs = jax.nn.log_softmax(_head(params, hidden(params, h)[:, :-1]))
        return jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0].sum(axis=-1)

    return fn


def logits(size: Size) -> Callable[[Params, Array], Array]:
    """`(params, ids [N, T]) -> [N, T, V]`."""
    hidden = _hidden(size)
    return lambda params, ids: _head(params, hidden(params, params["embedding"][ids]))


def log_likelihood(size: Size) -> Callable[[Params, Array], Array]:
    """`(params, ids [N, T]) -> [N]`."""
    inner = from_embedded(size)
    return lambda params, ids: inner(params, params["embedding"][ids], ids)
