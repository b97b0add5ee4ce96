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
        n, t, _ = x.shape
        h, k = self.query.shape[1:]
        groups = self.key.shape[1]
        angles = rotary_angles(t, k, self.rope_theta)
        query = rotate_pairs(
            jnp.einsum("ntd,dhk->nthk", x, self.query[...].astype(x.dtype)), angles
        )
        key = rotate_pairs(jnp.einsum("ntd,dgk->ntgk", x, self.key[...].astype(x.dtype)), angles)
        value = jnp.einsum("ntd,dgk->ntgk", x, self.value[...].astype(x.dtype))
        query = query.reshape(n, t, groups, h // groups, k)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        scores = jnp.einsum("ntgrk,nsgk->ngrts", query, key, preferred_element_type=wide)
        causal = np.tril(np.ones((t, t), bool))
        scores = jnp.where(causal, scores / np.sqrt(k), jnp.finfo(wide).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("ngrts,nsgk->ntgrk", weights, value).reshape(n, t, h, k)
        return jnp.einsum("nthk,hkd->ntd", mixed, self.output[...].astype(x.dtype))


class GatedMLP(nnx.Module):
    """`(silu(x gate) * (x up)) down` (Shazeer 2020, arXiv 2002.05202, SwiGLU)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, f = config.width, config.hidden_width
        self.gate = normal_weight(rngs, (d, f), d)
        self.up = normal_weight(rngs, (d, f), d)
        self.down = normal_weight(rngs, (f, d), f)

    def __call__(self, x: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
        """Applies the MLP at every position."""
        gate = jnp.einsum("ntd,df->ntf", x, self.gate[...].astype(x.dtype))
        up = jnp.einsum("ntd,df->ntf", x, self.up[...].astype(x.dtype))
        return jnp.einsum("ntf,fd->ntd", jax.nn.silu(gate) * up, self.down[...].astype(x.dtype))


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
