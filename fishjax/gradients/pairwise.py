r"""Inner products of per-example gradients from their factors.

For two sums of outer products, $\langle\sum_r a_r b_r^\top, \sum_s a'_s b'^\top_s\rangle =
\sum_{rs} (a_r\cdot a'_s)(b_r\cdot b'_s)$: two Gram matrices over rows instead of a gradient
(methods: ghost norms; Goodfellow 2015, arXiv 1510.01799). Which is cheaper depends on the
shapes, and is chosen here, by floating-point operations and by memory.

Everything is one operation: G groups, the N examples of each against its M examples. Norms are
G = N groups of one, a question's Gram is one group of K answers, a kernel is a single group.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture import Embedding, Gradient, Outer
from fishjax.capture.centring import centred, is_centred
from fishjax.capture.costs import pairs, prefers_gram
from fishjax.capture.factored import accumulator, each, merged

__all__ = ["pairwise"]

_HIGHEST = jax.lax.Precision.HIGHEST


def pairwise(a: Gradient, b: Gradient, groups: int) -> Array:
    """`[G, N, M]` inner products; `a` holds G·N examples and `b` G·M, groups contiguous.

    Accumulated in float32, or float64 for float64 gradients, at the highest matmul precision.
    """
    a, b = (merged(a),) * 2 if a is b else (merged(a), merged(b))
    if prefers_gram(a, b, groups):
        return sum(_factored(x, y, groups) for x, y in pairs(a, b))  # type: ignore[return-value]
    left, right = _dense(a, b)
    axes = tuple(range(1, left.ndim))
    if left.shape[0] == right.shape[0] == groups:
        return jnp.sum(left * right, axis=axes)[:, None, None]
    # Merging axes would gather gradients that a mesh shards; leaving them apart, XLA's CPU backend
    # transposes the gradients.
    shape = (-1,) if jax.device_count() == 1 else left.shape[1:]
    left = left.reshape(groups, left.shape[0] // groups, *shape)
    right = right.reshape(groups, right.shape[0] // groups, *shape)
    inner = tuple(range(2, left.ndim))
    return jax.lax.dot_general(
        left,
        right,
        ((inner, inner), ((0,), (0,))),
        precision=_HIGHEST,
        preferred_element_type=accumulator(jnp.promote_types(left.dtype, right.dtype)),
    )


def _dense(a: Gradient, b: Gradient) -> tuple[Array, Array]:
    """Both gradients materialised, their entries in any common order."""
    if isinstance(a, Outer) and isinstance(b, Outer) and a.layout == b.layout:
        first = a.unshaped()
        return first, first if a is b else b.unshaped()
    first = a.materialise()
    return first, first if a is b else b.materialise()


def _einsum(spec: str, x: Array, y: Array) -> Array:
    dtype = accumulator(jnp.promote_types(x.dtype, y.dtype))
    return jnp.einsum(spec, x, y, precision=_HIGHEST, preferred_element_type=dtype)


def _gram(x: Array, y: Array, groups: int) -> Array:
    """Products of rows: `[G·N, B, R, I]` with `[G·M, B, S, I]` to `[G, B, N, R, M, S]`."""

    def grouped(z: Array) -> Array:
        z = z.reshape(groups, -1, *z.shape[1:])
        z = jnp.moveaxis(z, 1, 2)
        return z.reshape(*z.shape[:2], -1, z.shape[-1])

    product = _einsum("gbri,gbsi->gbrs", grouped(x), grouped(y))
    n, m = x.shape[0] // groups, y.shape[0] // groups
    return product.reshape(groups, x.shape[1], n, x.shape[2], m, y.shape[2])


def _shared_gram(x: Array, y: Array, n: int, m: int, groups: int) -> Array:
    """`_gram` of factors that several outputs of an example may share: computed once."""
    shared = x.shape[0]
    if shared == n and y.shape[0] == m:
        return _gram(x, y, groups)
    if shared == y.shape[0] and groups % shared == 0:
        return jnp.repeat(_gram(x, y, shared), groups // shared, axis=0)
    return _gram(each(x, n), each(y, m), groups)


def _factored(a: Any, b: Any, groups: int) -> Array:
    if isinstance(b, Outer):
        if isinstance(a, Embedding):
            return jnp.swapaxes(_factored(b, a, groups), 1, 2)
        return _centred_products(a, b, groups)
    n, m = a.num_examples, b.num_examples
    right_a = a.right if isinstance(a, Outer) else a.right[:, None]
    right = _shared_gram(right_a, b.right[:, None], n, m, groups)
    if isinstance(a, Outer):
        product = _columns(a, b.indices, groups) * right
    else:
        tables: tuple[Any, Any] = (a, b)
        ids_a, ids_b = (x.indices.reshape(groups, 1, -1, x.right.shape[1]) for x in tables)
        product = jnp.where(ids_a[..., None, None] == ids_b[:, :, None, None], right, 0)
    return _summed(product, n, m, groups)


def _summed(product: Array, n: int, m: int, groups: int) -> Array:
    """`[G, B, N, R, M, S]` to `[G, N, M]`; examples may share."""
    summed = jnp.sum(product, axis=(1, 3, 5))
    return jnp.broadcast_to(summed, (groups, n // groups, m // groups))


def _centred_products(a: Outer, b: Outer, groups: int) -> Array:
    if not all(is_centred(x.dtype, x.right.shape[2]) for x in (a, b)):
        return _products(a, b, groups)
    rows, mean = centred(a)
    other, other_mean = (rows, mean) if b is a else centred(b)
    border = _products(rows, other_mean, groups)
    second = jnp.swapaxes(border, 1, 2) if b is a else _products(mean, other, groups)
    return _products(rows, other, groups) + border + second + _products(mean, other_mean, groups)


def _products(a: Outer, b: Outer, groups: int) -> Array:
    n, m = a.num_examples, b.num_examples
    left = _shared_gram(a.left, b.left, n, m, groups)
    return _summed(left * _shared_gram(a.right, b.right, n, m, groups), n, m, groups)


def _columns(a: Outer, ids: Array, groups: int) -> Array:
    """`left[n, 0, r, ids[m, s]]` of all pairs within a group: `[G, 1, N, R, M, S]`."""
    left = each(a.left, a.num_examples)[:, 0]
    rows = left.shape[1]
    left = left.reshape(groups, -1, left.shape[-1])
    flat = jnp.take_along_axis(left, ids.reshape(groups, 1, -1), axis=-1)
    return flat.reshape(groups, 1, a.num_examples // groups, rows, -1, ids.shape[-1])
