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
from fishjax.capture.costs import parts, prefers_gram
from fishjax.capture.factored import accumulator

__all__ = ["pairwise"]

_HIGHEST = jax.lax.Precision.HIGHEST


def pairwise(a: Gradient, b: Gradient, groups: int) -> Array:
    """`[G, N, M]` inner products; `a` holds G·N examples and `b` G·M, groups contiguous.

    Accumulated in float32, or float64 for float64 gradients, at the highest matmul precision.
    """
    if prefers_gram(a, b, groups):
        return sum(_factored(x, y, groups) for x in parts(a) for y in parts(b))  # type: ignore[return-value]
    left = a.materialise()
    right = left if a is b else b.materialise()
    # The parameter's axes stay apart: merging them would gather gradients that a mesh shards.
    axes = tuple(range(1, left.ndim))
    if left.shape[0] == right.shape[0] == groups:
        return jnp.sum(left * right, axis=axes)[:, None, None]
    left = left.reshape(groups, left.shape[0] // groups, *left.shape[1:])
    right = right.reshape(groups, right.shape[0] // groups, *right.shape[1:])
    inner = tuple(a + 1 for a in axes)
    return jax.lax.dot_general(
        left,
        right,
        ((inner, inner), ((0,), (0,))),
        precision=_HIGHEST,
        preferred_element_type=accumulator(jnp.promote_types(left.dtype, right.dtype)),
    )


def _einsum(spec: str, x: Array, y: Array) -> Array:
    dtype = accumulator(jnp.promote_types(x.dtype, y.dtype))
    return jnp.einsum(spec, x, y, precision=_HIGHEST, preferred_element_type=dtype)


def _grouped(x: Array, groups: int) -> Array:
    """`[G·N, B, R, I]` to `[G, B, N·R, I]`."""
    n = x.shape[0] // groups
    x = x.reshape(groups, n, *x.shape[1:])
    return jnp.moveaxis(x, 1, 2).reshape(groups, x.shape[2], n * x.shape[3], x.shape[4])


def _reduce(product: Array, n: int, m: int) -> Array:
    """Sums `[G, B, N·R, M·S]` over blocks and rows to `[G, N, M]`."""
    g, b, nr, ms = product.shape
    if n == m == 1:
        return jnp.sum(product, axis=(1, 2, 3))[:, None, None]
    return jnp.sum(product.reshape(g, b, n, nr // n, m, ms // m), axis=(1, 3, 5))


def _factored(a: Any, b: Any, groups: int) -> Array:
    if isinstance(b, Outer) and isinstance(a, Embedding):
        return jnp.swapaxes(_factored(b, a, groups), 1, 2)
    n, m = a.num_examples // groups, b.num_examples // groups
    if isinstance(a, Outer):
        right_a = _grouped(a.right, groups)
        left_a = _grouped(a.left, groups)
        if isinstance(b, Outer):
            left = _einsum("gbri,gbsi->gbrs", left_a, _grouped(b.left, groups))
            right_b = _grouped(b.right, groups)
        else:
            ids = b.indices.reshape(groups, 1, 1, -1)
            left = jnp.take_along_axis(left_a, ids, axis=-1)
            right_b = b.right.reshape(groups, 1, -1, b.right.shape[-1])
    else:
        both: tuple[Any, Any] = (a, b)
        ids_a, ids_b = (x.indices.reshape(groups, 1, -1) for x in both)
        right_a, right_b = (x.right.reshape(groups, 1, -1, x.right.shape[-1]) for x in both)
        left = (ids_a[..., :, None] == ids_b[..., None, :]).astype(accumulator(a.right.dtype))
    right = _einsum("gbrj,gbsj->gbrs", right_a, right_b)
    return _reduce(left * right, n, m)
