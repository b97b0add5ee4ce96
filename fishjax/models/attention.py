"""Causal grouped-query attention: rotation, masks, the products."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = [
    "Context",
    "Prefix",
    "Scores",
    "attend",
    "attend_where",
    "flatten_tokens",
    "rotate",
]

Table = Array | np.ndarray


class Scores(NamedTuple):
    """How scores become weights.

    Attributes:
      scale: what query-key products are multiplied by, None for `1 / sqrt(k)`.
      cap: scores become `cap * tanh(scores / cap)`, None for no cap.
    """

    scale: float | None = None
    cap: float | None = None


PLAIN = Scores()


class Prefix(NamedTuple):
    """What a continuation reads of the sequence it continues, one layer.

    Attributes:
      keys: `[N, P, g, k]`.
      values: likewise.
      gaps: `[N, T, P + T]` how far before each token of the continuation every key of prefix and
        continuation is, 0 for itself; negative for what it does not attend to.
    """

    keys: Array
    values: Array
    gaps: Array


class Context(NamedTuple):
    """What a layer is told beside its input.

    Attributes:
      cos: `[T, half]` or `[N, T, half]`, of the positions of the tokens; None without rotation.
      sin: likewise.
      window: keys a position attends to, itself included; None for all.
      mask: `[N, T]`, false for padding anywhere; None where only the right is padded.
      prefix: what the rows continue, or None.
      past: `(keys, values)` `[N, S, g, k]` of earlier tokens with room for these, or None.
      start: where in `past` these tokens go.
      allowed: `[N, T, S]` which keys of `past` a token attends to, window not included.
      dropout_keys: `[N]` of this layer, None for no dropout.
    """

    cos: Table | None
    sin: Table | None
    window: Any = None
    mask: Array | None = None
    prefix: Prefix | None = None
    past: tuple[Array, Array] | None = None
    start: Any = None
    allowed: Array | None = None
    dropout_keys: Array | None = None


def flatten_tokens(x: Float[Array, "N T ..."]) -> Float[Array, "M ..."]:
    """All tokens along one axis: the weight gradient is then one matrix product without copies."""
    return x.reshape(-1, *x.shape[2:])


def rotate(
    x: Float[Array, "N T h k"], cos: Table, sin: Table, *, interleaved: bool
) -> Float[Array, "N T h k"]:
    """Rotates pairs of features; features beyond the tables' pairs stay.

    Args:
      x: queries or keys.
      cos: `[T, half]` or `[N, T, half]`.
      sin: likewise.
      interleaved: pairs are (2i, 2i+1), otherwise (i, i + half).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    cos, sin = (jnp.asarray(table[..., None, :], wide) for table in (cos, sin))
    size = 2 * cos.shape[-1]
    turned = x[..., :size].astype(wide)
    if interleaved:
        pairs = turned.reshape(*turned.shape[:-1], -1, 2)
        first, second = pairs[..., 0], pairs[..., 1]
    else:
        first, second = jnp.split(turned, 2, axis=-1)
    halves = first * cos - second * sin, first * sin + second * cos
    if interleaved:
        turned = jnp.stack(halves, axis=-1).reshape(turned.shape)
    else:
        turned = jnp.concatenate(halves, axis=-1)
    turned = turned.astype(x.dtype)
    return turned if size == x.shape[-1] else jnp.concatenate([turned, x[..., size:]], axis=-1)


def attend(
    query: Float[Array, "N T h k"],
    key: Float[Array, "N T g k"],
    value: Float[Array, "N T g k"],
    *,
    window: Any = None,
    mask: Array | None = None,
    scores: Scores = PLAIN,
) -> Float[Array, "N T h k"]:
    """Causal attention; query head i uses key and value head i // (h / g).

    Long sequences go in up to 4 blocks of queries, each against the keys up to its end (and from
    the window's beginning, where the window is a number): that skips up to 3/8 of the scores, and
    what is left fits the caches better.

    Args:
      query: after rotation.
      key: after rotation.
      value: as projected.
      window: keys a position attends to, itself included: None, a number or a traced number.
      mask: `[N, T]` keys that count.
      scores: scale and cap.
    """
    length = query.shape[1]
    size = max(128, -(-length // 4))
    blocks = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = max(0, start - window + 1) if isinstance(window, int) else 0
        allowed: Any = np.tri(stop - start, stop - first, start - first, dtype=bool)
        if window is not None:
            at, keys = np.arange(start, stop)[:, None], np.arange(first, stop)
            allowed = allowed & (at - keys < window)
        if mask is not None:
            allowed = allowed & mask[:, None, first:stop]
        part = key[:, first:stop], value[:, first:stop]
        blocks.append(attend_where(query[:, start:stop], *part, allowed, scores))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def attend_where(
    query: Array, key: Array, value: Array, allowed: Any, scores: Scores = PLAIN
) -> Array:
    """Attention of t queries to those of s keys that are allowed, `[t, s]` or `[N, t, s]`.

    The r = h / g query heads of a group and the positions share one axis of length r t, so both
    products have their batch axes (N, g) in front and the scores are never transposed.
    """
    n, t, h, k = query.shape
    g = key.shape[2]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)  # [N, g, s, k]
    query = jnp.moveaxis(query.reshape(n, t, g, h // g, k), 1, 3).reshape(n, g, -1, k)
    products = jnp.einsum("ngmk,ngsk->ngms", query, key, preferred_element_type=wide)
    products = products / np.sqrt(k) if scores.scale is None else products * scores.scale
    if scores.cap is not None:
        products = scores.cap * jnp.tanh(products / scores.cap)
    numpy = np if isinstance(allowed, np.ndarray) else jnp
    tiles = (h // g, 1) if allowed.ndim == 2 else (1, h // g, 1)
    allowed = numpy.tile(allowed, tiles)
    if allowed.ndim == 3:
        allowed = allowed[:, None]
    products = jnp.where(allowed, products, jnp.finfo(wide).min)
    weights = jax.nn.softmax(products, axis=-1).astype(value.dtype)
    mixed = jnp.einsum("ngms,ngsk->ngmk", weights, value)
    return jnp.moveaxis(mixed.reshape(n, g, h // g, t, k), 3, 1).reshape(n, t, h, k)
