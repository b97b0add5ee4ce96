"""The parts of a decoder block: norms, rotary grouped-query attention, MLPs.

Weights are oriented input first, output last, so every product is an einsum that contracts
the weight's leading axis: `query` is `[d, h, k]`, `up` is `[d, f]`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from .attention import Context, Scores, attend, attend_where, flatten_tokens, rotate
from .config import DecoderConfig
from .lora_layers import add_adapters, with_low_rank

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "add_norm",
    "layer_norm",
    "normal_weight",
    "normalised",
    "project",
    "projected",
    "rms_norm",
]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def normal_weight(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    """Normal weights of variance 1 / fan_in: unit-variance inputs keep unit variance."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) / np.sqrt(fan_in))


def rms_norm(
    x: Float[Array, "... d"], scale: Float[Array, " d"], epsilon: float
) -> Float[Array, "... d"]:
    """Divides by the root mean square over the features, then multiplies by `scale`.

    Computes in at least float32 and returns the dtype of `x`.

    References:
      Zhang and Sennrich (2019), arXiv 1910.07467.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * inverse * scale.astype(wide.dtype)).astype(x.dtype)


def layer_norm(
    x: Float[Array, "... d"], scale: Float[Array, " d"], bias: Float[Array, " d"], epsilon: float
) -> Float[Array, "... d"]:
    """Standardises over the features, then scales and shifts; in at least float32.

    References:
      Ba, Kiros and Hinton (2016), arXiv 1607.06450.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
    return (centred * inverse * scale.astype(wide.dtype) + bias.astype(wide.dtype)).astype(x.dtype)


def add_norm(module: nnx.Module, name: str, config: DecoderConfig, size: int) -> None:
    """Gives a module the parameters of the config's norm: `name`, and `name_bias`."""
    scale = jnp.zeros(size) if config.norm == "rms_offset" else jnp.ones(size)
    setattr(module, name, nnx.Param(scale))
    if config.norm == "layer":
        setattr(module, f"{name}_bias", nnx.Param(jnp.zeros(size)))


def normalised(
    module: nnx.Module, name: str, config: DecoderConfig, x: Float[Array, "... d"]
) -> Float[Array, "... d"]:
    """Applies the norm that `add_norm` gave to the module."""
    scale = getattr(module, name)[...]
    if config.norm == "layer":
        return layer_norm(x, scale, getattr(module, f"{name}_bias")[...], config.norm_epsilon)
    if config.norm == "rms_offset":
        scale = 1 + scale.astype(jnp.promote_types(scale.dtype, jnp.float32))
    return rms_norm(x, scale, config.norm_epsilon)


def project(
    x: Float[Array, "N T d"], weight: Float[Array, "d *out"], bias: Array | None = None
) -> Float[Array, "N T *out"]:
    """Contracts the features with the leading axis of `weight`, in the dtype of `x`."""
    out = jnp.tensordot(flatten_tokens(x), weight.astype(x.dtype), axes=1)
    out = out.reshape(*x.shape[:2], *weight.shape[1:])
    return out if bias is None else out + bias.astype(x.dtype)


def projected(
    module: nnx.Module, name: str, x: Float[Array, "N T d"], dropout_keys: Array | None = None
) -> Float[Array, "N T *out"]:
    """`x` times a weight of the module, with its bias and its low-rank term."""
    out = project(x, getattr(module, name)[...], _optional(module, f"{name}_bias"))
    return with_low_rank(module, name, x, out, dropout_keys)


def _optional(module: nnx.Module, name: str) -> Array | None:
    found = getattr(module, name, None)
    return None if found is None else found[...]


class Attention(nnx.Module):
    """Causal grouped-query attention: query heads of group g share key and value head g."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, h, g, k = config.width, config.num_heads, config.num_kv_heads, config.head_width
        self.config = config
        self.query = normal_weight(rngs, (d, h, k), d)
        self.key = normal_weight(rngs, (d, g, k), d)
        self.value = normal_weight(rngs, (d, g, k), d)
        self.output = normal_weight(rngs, (h, k, d), h * k)
        if config.projection_biases:
            self.query_bias = nnx.Param(jnp.zeros((h, k)))
            self.key_bias = nnx.Param(jnp.zeros((g, k)))
            self.value_bias = nnx.Param(jnp.zeros((g, k)))
        if config.output_bias:
            self.output_bias = nnx.Param(jnp.zeros(d))
        if config.head_norms:
            add_norm(self, "query_norm", config, k)
            add_norm(self, "key_norm", config, k)

    def __call__(
        self, x: Float[Array, "N T d"], context: Context
    ) -> tuple[Float[Array, "N T d"], tuple[Array, Array]]:
        """`(output, keys and values with those of the past)`; the softmax is at least float32."""
        query, key = (self._heads(x, name, context) for name in ("query", "key"))
        value = projected(self, "value", x, context.dropout_keys)
        scores = Scores(self.config.query_scale, self.config.score_cap)
        mixed, held = _attended(query, key, value, context, scores)
        weight, bias = self.output[...].astype(x.dtype), _optional(self, "output_bias")
        out = jnp.einsum("mhk,hkd->md", flatten_tokens(mixed), weight).reshape(x.shape)
        out = out if bias is None else out + bias.astype(x.dtype)
        return with_low_rank(self, "output", mixed, out, context.dropout_keys), held

    def _heads(self, x: Array, name: str, context: Context) -> Array:
        """Queries or keys, normalised and rotated."""
        heads = projected(self, name, x, context.dropout_keys)
        if self.config.head_norms:
            heads = normalised(self, f"{name}_norm", self.config, heads)
        if context.cos is None or context.sin is None:
            return heads
        interleaved = self.config.rotary_of(local=False).interleaved
        return rotate(heads, context.cos, context.sin, interleaved=interleaved)


def _attended(
    query: Array, key: Array, value: Array, context: Context, scores: Scores
) -> tuple[Array, tuple[Array, Array]]:
    """`(values mixed by attention, keys and values with those of the past)`."""
    if context.past is not None:
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), context.start, 1)
            for old, new in zip(context.past, (key, value), strict=True)
        )
        return attend_where(query, keys, values, _recent(context), scores), (keys, values)
    if context.prefix is not None:
        before, gaps = context.prefix[:2], context.prefix.gaps
        keys, values = (
            jnp.concatenate(pair, axis=1) for pair in zip(before, (key, value), strict=True)
        )
        mixed = attend_where(query, keys, values, _within(gaps, context.window), scores)
        return mixed, (key, value)
    given = {"window": context.window, "mask": context.mask}
    return attend(query, key, value, **given, scores=scores), (key, value)


def _within(gaps: Array, window: Any) -> Array:
    """The keys at or before a token, inside the window if there is one."""
    return gaps >= 0 if window is None else (gaps >= 0) & (gaps < window)


def _recent(context: Context) -> Array:
    """The keys of the past that are allowed and inside the window."""
    allowed: Any = context.allowed
    if context.window is None:
        return allowed
    at = context.start + jnp.arange(allowed.shape[1])[:, None]
    return allowed & (at - jnp.arange(allowed.shape[2]) < context.window)


class MLP(nnx.Module):
    """`act(x up) down`, or gated: `(act(x gate) * (x up)) down`.

    References:
      Shazeer (2020), arXiv 2002.05202.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        d, f = config.width, config.hidden_width
        self.config = config
        if config.mlp == "gated":
            self.gate = normal_weight(rngs, (d, f), d)
        self.up = normal_weight(rngs, (d, f), d)
        self.down = normal_weight(rngs, (f, d), f)
        if config.mlp_biases:
            if config.mlp == "gated":
                self.gate_bias = nnx.Param(jnp.zeros(f))
            self.up_bias = nnx.Param(jnp.zeros(f))
            self.down_bias = nnx.Param(jnp.zeros(d))

    def __call__(
        self, x: Float[Array, "N T d"], dropout_keys: Array | None = None
    ) -> Float[Array, "N T d"]:
        """Applies the MLP at every position."""
        activation = _ACTIVATIONS[self.config.activation]
        hidden = projected(self, "up", x, dropout_keys)
        if self.config.mlp == "gated":
            gate = projected(self, "gate", x, dropout_keys)
            hidden = activation(gate) * hidden
        else:
            hidden = activation(hidden)
        return projected(self, "down", hidden, dropout_keys)


class Block(nnx.Module):
    """Residual block with norms in front: attention, then MLP, or both side by side."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        add_norm(self, "attention_norm", config, config.width)
        self.attention = Attention(config, rngs=rngs)
        add_norm(self, "mlp_norm", config, config.width)
        self.mlp = MLP(config, rngs=rngs)
        for group in ("attention", "mlp"):  # last: a key draws the weights it does without them
            add_adapters(getattr(self, group), group, config, rngs=rngs)
        if config.post_norms:
            add_norm(self, "post_attention_norm", config, config.width)
            add_norm(self, "post_mlp_norm", config, config.width)

    def __call__(
        self, x: Float[Array, "N T d"], context: Context
    ) -> tuple[Float[Array, "N T d"], tuple[Array, Array]]:
        """`(x with both sub-layers added, keys and values as from Attention)`."""
        mixed, held = self.attention(normalised(self, "attention_norm", self.config, x), context)
        after = x + self._post("post_attention_norm", mixed)
        read = x if self.config.parallel else after
        out = self.mlp(normalised(self, "mlp_norm", self.config, read), context.dropout_keys)
        return after + self._post("post_mlp_norm", out), held

    def _post(self, name: str, x: Array) -> Array:
        return normalised(self, name, self.config, x) if self.config.post_norms else x
