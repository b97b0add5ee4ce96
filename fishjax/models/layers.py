"""The parts of a Llama block: RMSNorm, rotary grouped-query attention, gated MLP.

Weights are oriented input first, output last, so every product is an einsum that contracts
the weight's leading axis: `query` is `[d, h, k]`, `gate` is `[d, f]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from .config import DecoderConfig

__all__ = ["Attention", "Block", "GatedMLP", "rms_norm", "rotary_angles", "rotate_pairs"]


def normal_weight(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    """Normal weights of variance 1 / fan_in: unit-variance inputs keep unit variance."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) / np.sqrt(fan_in))


def rms_norm(
    x: Float[Array, "N T d"], scale: Float[Array, " d"], epsilon: float
) -> Float[Array, "N T d"]:
    """Divides by the root mean square over the features, then multiplies by `scale`.

    Computes in at least float32 and returns the dtype of `x`.

    References:
      Zhang and Sennrich (2019), arXiv 1910.07467.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * inverse * scale.astype(wide.dtype)).astype(x.dtype)


def rotary_angles(length: int, head_width: int, theta: float) -> Float[np.ndarray, "T half"]:
    """Angle t * theta^(-2i/k) of pair i at position t, in radians and float64.

    References:
      Su et al. (2021), arXiv 2104.09864, equation 15.
    """
    frequencies = theta ** (-np.arange(0, head_width, 2, dtype=np.float64) / head_width)
    return np.arange(length, dtype=np.float64)[:, None] * frequencies


def rotate_pairs(
    x: Float[Array, "N T h k"], angles: Float[np.ndarray, "T half"]
) -> Float[Array, "N T h k"]:
    """Rotates features (2i, 2i+1) by the angle of pair i: llama2.c's interleaved convention.

    Hugging Face's Llama rotates (i, i + k/2) instead; its checkpoints differ from these by a
    permutation of the query and key features.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    pairs = x.astype(wide).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    cos = jnp.asarray(np.cos(angles)[:, None], wide)
    sin = jnp.asarray(np.sin(angles)[:, None], wide)
    rotated = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


class Attention(nnx.Module):
    """Causal grouped-query attention: query heads of group g share key and value head g."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, h, g, k = config.width, config.num_heads, config.num_kv_heads, config.head_width
        self.query = normal_weight(rngs, (d, h, k), d)
        self.key = normal_weight(rngs, (d, g, k), d)
        self.value = normal_weight(rngs, (d, g, k), d)
        self.output = normal_weight(rngs, (h, k, d), h * k)
        self.rope_theta = config.rope_theta

    def __call__(self, x: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
        """Position t attends to positions 0..t; the softmax is in at least float32."""
        t, k = x.shape[1], self.key.shape[-1]
        angles = rotary_angles(t, k, self.rope_theta)
        query = rotate_pairs(project(x, self.query[...]), angles)
        key = rotate_pairs(project(x, self.key[...]), angles)
        mixed = attend(query, key, project(x, self.value[...]))
        weight = self.output[...].astype(x.dtype)
        return jnp.einsum("mhk,hkd->md", flatten_tokens(mixed), weight).reshape(x.shape)


def flatten_tokens(x: Float[Array, "N T ..."]) -> Float[Array, "M ..."]:
    """All tokens along one axis: the weight gradient is then one matrix product without copies."""
    return x.reshape(-1, *x.shape[2:])


def project(x: Float[Array, "N T d"], weight: Float[Array, "d *out"]) -> Float[Array, "N T *out"]:
    """Contracts the features with the leading axis of `weight`, in the dtype of `x`."""
    out = jnp.tensordot(flatten_tokens(x), weight.astype(x.dtype), axes=1)
    return out.reshape(*x.shape[:2], *weight.shape[1:])


def attend(
    query: Float[Array, "N T h k"], key: Float[Array, "N T g k"], value: Float[Array, "N T g k"]
) -> Float[Array, "N T h k"]:
    """Causal attention; query head i uses key and value head i // (h / g).

    Long sequences go in up to 4 blocks of queries, each against the keys up to its end: that
    skips up to 3/8 of the scores, and what is left fits the caches better.
    """
    length = query.shape[1]
    size = max(128, -(-length // 4))
    blocks = [
        _attend_block(
            query[:, start : start + size], key[:, : start + size], value[:, : start + size]
        )
        for start in range(0, length, size)
    ]
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def _attend_block(query: Array, key: Array, value: Array) -> Array:
    """Attention of the last t of s positions to all of them.

    The r = h / g query heads of a group and the positions share one axis of length r t, so both
    products have their batch axes (N, g) in front and the scores are never transposed.
    """
    n, t, h, k = query.shape
    s, g = key.shape[1:3]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)  # [N, g, s, k]
    query = jnp.moveaxis(query.reshape(n, t, g, h // g, k), 1, 3).reshape(n, g, -1, k)
    scores = jnp.einsum("ngmk,ngsk->ngms", query, key, preferred_element_type=wide)
    causal = np.tile(np.tri(t, s, s - t, dtype=bool), (h // g, 1))
    scores = jnp.where(causal, scores / np.sqrt(k), jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("ngms,ngsk->ngmk", weights, value)
    return jnp.moveaxis(mixed.reshape(n, g, h // g, t, k), 3, 1).reshape(n, t, h, k)


class GatedMLP(nnx.Module):
    """`(silu(x gate) * (x up)) down` (Shazeer 2020, arXiv 2002.05202, SwiGLU)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, f = config.width, config.hidden_width
        self.gate = normal_weight(rngs, (d, f), d)
        self.up = normal_weight(rngs, (d, f), d)
        self.down = normal_weight(rngs, (f, d), f)

    def __call__(self, x: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
        """Applies the MLP at every position."""
        hidden = jax.nn.silu(project(x, self.gate[...])) * project(x, self.up[...])
        return project(hidden, self.down[...])


class Block(nnx.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.attention_norm = nnx.Param(jnp.ones(config.width))
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = nnx.Param(jnp.ones(config.width))
        self.mlp = GatedMLP(config, rngs=rngs)
        self.norm_epsilon = config.norm_epsilon

    def __call__(self, x: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
        """Adds both sub-layers to the residual stream."""
        x = x + self.attention(rms_norm(x, self.attention_norm[...], self.norm_epsilon))
        return x + self.mlp(rms_norm(x, self.mlp_norm[...], self.norm_epsilon))
