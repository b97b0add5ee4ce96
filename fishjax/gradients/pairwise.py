r"""Inner products of per-example gradients from their factors.

For two sums of outer products, $\langle\sum_r a_r b_r^\top, \sum_s a'_s b'^\top_s\rangle =
\sum_{rs} (a_r\cdot a'_s)(b_r\cdot b'_s)$: two Gram matrices over rows instead of a gradient
(methods: ghost norms; Goodfellow 2015, arXiv 1510.01799). Which is cheaper depends on the
shapes, and is chosen here, by floating-point operations and by memory.

Everything is one operation: G groups, the N examples of each against its M examples. Norms are
G = N groups of one, a question's Gram is one group of K answers, a kernel is a single group.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer, Sum, accumulator

__all__ = ["Cost", "gram_cost", "materialised_cost", "pairwise", "prefers_gram"]

_HIGHEST = jax.lax.Precision.HIGHEST
_BUFFER_LIMIT = 2**30  # elements of one materialised buffer above which memory decides


class Cost(NamedTuple):
    """Estimated floating-point operations, and elements of the largest buffer."""

    flops: float
    elements: float


def pairwise(a: Gradient, b: Gradient, groups: int) -> Array:
    """`[G, N, M]` inner products; `a` holds G·N examples and `b` G·M, groups contiguous.

    Accumulated in float32, or float64 for float64 gradients, at the highest matmul precision.
    """
    if prefers_gram(a, b, groups):
        return sum(_factored(x, y, groups) for x in _parts(a) for y in _parts(b))  # type: ignore[return-value]
    left = a.materialise()
    right = left if a is b else b.materialise()
    left = left.reshape(groups, left.shape[0] // groups, -1)
    right = right.reshape(groups, right.shape[0] // groups, -1)
    if left.shape[1] == right.shape[1] == 1:
        return jnp.sum(left * right, axis=-1)[..., None]
    return _einsum("gnp,gmp->gnm", left, right)


def prefers_gram(a: Gradient, b: Gradient, groups: int) -> bool:
    """Whether the Gram form is chosen: by memory for embeddings and huge buffers, else by time.

    A materialised embedding is one dense table an example; it is never formed unless the Gram
    matrix over rows would be larger.
    """
    if isinstance(a, Materialised) or isinstance(b, Materialised):
        return False
    if not all(_compatible(x, y) for x in _parts(a) for y in _parts(b)):
        return False
    gram, dense = gram_cost(a, b, groups), materialised_cost(a, b, groups)
    embeds = any(isinstance(part, Embedding) for part in (*_parts(a), *_parts(b)))
    if embeds or dense.elements > _BUFFER_LIMIT:
        return gram.elements <= dense.elements
    return gram.flops <= dense.flops


def gram_cost(a: Gradient, b: Gradient, groups: int) -> Cost:
    """The cost of the Gram form of all pairs of parts."""
    flops = elements = 0.0
    for x in _parts(a):
        for y in _parts(b):
            pairs = groups * (_rows(x) // groups) * (_rows(y) // groups)
            blocks = x.left.shape[1] if isinstance(x, Outer) else 1
            elements = max(elements, 2.0 * pairs * blocks)
            widths = x.right.shape[-1]
            if isinstance(x, Outer) and isinstance(y, Outer):
                widths += x.left.shape[-1]
            flops += 2.0 * pairs * blocks * widths
    return Cost(flops, elements)


def materialised_cost(a: Gradient, b: Gradient, groups: int) -> Cost:
    """The cost of forming every gradient and multiplying them."""
    flops = elements = 0.0
    for gradient in (a,) if a is b else (a, b):
        for part in _parts(gradient):
            size = _parameter_size(part)
            elements += float(part.num_examples * size)
            flops += 2.0 * (_rows(part) * size if isinstance(part, Outer) else elements)
    n, m = a.num_examples // groups, b.num_examples // groups
    flops += 2.0 * groups * n * m * _parameter_size(_parts(a)[0])
    return Cost(flops, elements)


def _compatible(x: Any, y: Any) -> bool:
    """Whether two parts state the parameter's axes alike."""
    if isinstance(x, Outer) and isinstance(y, Outer):
        return (x.dims, x.permutation) == (y.dims, y.permutation)
    return True


def _parts(gradient: Gradient) -> tuple[Any, ...]:
    return gradient.parts if isinstance(gradient, Sum) else (gradient,)


def _rows(part: Any) -> int:
    """Rows of all examples together (of one block)."""
    if isinstance(part, Materialised):
        return part.num_examples
    return part.num_examples * part.right.shape[-2]


def _parameter_size(part: Any) -> int:
    if isinstance(part, Outer):
        return math.prod(part.dims)
    if isinstance(part, Embedding):
        return math.prod(part.shape)
    return math.prod(part.gradient.shape[1:])


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
        ids_a, ids_b = (x.indices.reshape(groups, 1, -1) for x in (a, b))
        right_a, right_b = (x.right.reshape(groups, 1, -1, x.right.shape[-1]) for x in (a, b))
        left = (ids_a[..., :, None] == ids_b[..., None, :]).astype(accumulator(a.right.dtype))
    right = _einsum("gbrj,gbsj->gbrs", right_a, right_b)
    return _reduce(left * right, n, m)
