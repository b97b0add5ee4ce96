r"""Covariances applied to gradients in factored form.

For $\Sigma = A \otimes G$ and a gradient $\sum_r a_r b_r^\top$ the product
$\sum_r (A a_r)(G b_r)^\top$ is still factored (methods 2). A diagonal keeps an embedding's form, a
basis vector is projected on without forming the gradient. Where a form does not allow it the
functions return None.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture import Embedding, Gradient, Materialised, Outer, Sum
from fishjax.capture.costs import parts, prefers_gram
from fishjax.capture.factored import accumulator, each
from fishjax.operators import EigenKroneckerFactors, KroneckerFactors
from fishjax.operators.matricise import layout_of

__all__ = ["diagonal_times", "kronecker_times", "projected", "rotated"]

_HIGHEST = jax.lax.Precision.HIGHEST

Axes = tuple[int, ...]


def kronecker_times(
    operator: KroneckerFactors, gradient: Gradient, shape: tuple[int, ...]
) -> Gradient | None:
    """The operator's product with factored gradients, in factored form."""
    if operator.batch:
        return None
    axes = _kept_axes(operator, shape)
    products = [_kronecker_part(operator, part, axes, shape) for part in parts(gradient)]
    if any(product is None for product in products):
        return None
    return products[0] if len(products) == 1 else Sum(tuple(products))


def _kronecker_part(
    operator: KroneckerFactors, part: Any, axes: tuple[Axes, Axes], shape: tuple[int, ...]
) -> Any:
    if isinstance(part, Embedding):
        if axes != _embedding_axes(shape) or part.shape != shape:
            return None
        right = _times(part.right, operator.right)
        if operator.left is None or operator.left.ndim == 1:
            rows = 1.0 if operator.left is None else operator.left[part.indices][..., None]
            return dataclasses.replace(part, right=right * rows)
        left = operator.left[part.ids.astype(jnp.int32)]
        return _embedding_as_outer(part, left, right)
    if not isinstance(part, Outer) or (swapped := _orientation(part, axes)) is None:
        return None
    sides = _in_order(operator.left, operator.right, part, axes, swapped, both=True)
    left, right = _times(part.left, sides[0]), _times(part.right, sides[1])
    return dataclasses.replace(part, left=left, right=right)


def rotated(
    operator: EigenKroneckerFactors, gradient: Gradient, shape: tuple[int, ...]
) -> Materialised | None:
    """`[N, I, J]` gradients in the operator's eigenbasis."""
    if operator.batch:
        return None
    axes = _kept_axes(operator, shape)
    total = None
    for part in parts(gradient):
        if isinstance(part, Outer) and (swapped := _orientation(part, axes)) is not None:
            bases = operator.left_basis, operator.right_basis
            sides = _in_order(*bases, part, axes, swapped, both=False)
            left, right = _times(part.left, sides[0]), _times(part.right, sides[1])
            left, right = (right, left) if swapped else (left, right)
        elif isinstance(part, Embedding) and axes == _embedding_axes(shape):
            if operator.left_basis is None:
                return None
            left = operator.left_basis[part.ids.astype(jnp.int32)][:, None]
            right = _times(part.right, operator.right_basis)[:, None]
        else:
            return None
        matrix = Outer(left, right, (left.shape[-1], right.shape[-1]), (0, 1)).materialise()
        total = matrix if total is None else total + matrix
    return None if total is None else Materialised(total)


def diagonal_times(diagonal: Array, a: Gradient, b: Gradient) -> Gradient | None:
    """A diagonal's product with `b`, where the product with `a` needs no gradient."""
    if not (isinstance(a, Embedding) and isinstance(b, Embedding)) or b.restore is not None:
        return None
    rows = diagonal.reshape(b.shape[0], -1)[b.indices]
    return dataclasses.replace(b, right=b.right * rows)


def projected(basis: Array, gradient: Gradient) -> Array:
    """`[N, r]` inner products with the vectors of `basis [r, *shape]`."""
    n = gradient.num_examples
    if not isinstance(gradient, Materialised) and prefers_gram(gradient, gradient, n):
        found = [_projected_part(basis, part, n) for part in parts(gradient)]
        if all(f is not None for f in found):
            return functools.reduce(jnp.add, found)  # type: ignore[arg-type]
    dense = gradient.materialise()
    flat = dense.reshape(n, -1), basis.reshape(basis.shape[0], -1)
    return jnp.einsum("np,rp->nr", *flat, precision=_HIGHEST)


def _projected_part(basis: Array, part: Any, n: int) -> Array | None:
    """One basis vector at a time: a product of the layer's width, not a gradient."""
    if isinstance(part, Embedding):
        if part.restore is not None:
            return None
        table = basis.reshape(basis.shape[0], part.shape[0], -1)
        terms = jax.lax.map(lambda u: jnp.sum(u[part.indices] * part.right, axis=(1, 2)), table)
        return terms.T
    if not isinstance(part, Outer) or part.axes is None:
        return None
    order = tuple(a for group in part.axes for a in group)
    kept = sorted(order)
    blocks, rows, columns = part.left.shape[1], part.left.shape[-1], part.right.shape[-1]
    vectors = basis.reshape(basis.shape[0], *(part.dims[order.index(a)] for a in kept))
    vectors = jnp.transpose(vectors, (0, *(1 + kept.index(a) for a in order)))
    vectors = vectors.reshape(-1, blocks, rows, columns)
    left, right = each(part.left, n), each(part.right, n)
    dtype = accumulator(jnp.promote_types(part.dtype, basis.dtype))

    def one(vector: Array) -> Array:
        image = jnp.einsum(
            "nbri,bij->nbrj", left, vector, precision=_HIGHEST, preferred_element_type=dtype
        )
        return jnp.sum(image * right, axis=(1, 2, 3))

    return jax.lax.map(one, vectors).T


def _times(rows: Array, side: Any) -> Array:
    """`[..., I]` rows times a symmetric matrix, a diagonal, or the identity."""
    if side is None:
        return rows
    if side.ndim == 1:
        return rows * side
    dtype = accumulator(jnp.promote_types(rows.dtype, side.dtype))
    return jnp.einsum("...i,ij->...j", rows, side, precision=_HIGHEST, preferred_element_type=dtype)


def _kept_axes(operator: Any, shape: tuple[int, ...]) -> tuple[Axes, Axes]:
    """The operator's (left, right) axes without those of length one."""
    layout = layout_of(shape, (operator.left_axes, operator.right_axes), 0)

    def kept(axes: Axes) -> Axes:
        return tuple(a for a in axes if shape[a] != 1)

    return kept(layout.left), kept(layout.right)


def _embedding_axes(shape: tuple[int, ...]) -> tuple[Axes, Axes]:
    return (0,), tuple(a for a in range(1, len(shape)) if shape[a] != 1)


def _orientation(part: Outer, axes: tuple[Axes, Axes]) -> bool | None:
    """Whether the part's left is the operator's right; None where their groups differ."""
    if part.axes is None or part.axes[0]:
        return None
    left, right = (frozenset(group) for group in part.axes[1:])
    if (left, right) == (frozenset(axes[0]), frozenset(axes[1])):
        return False
    return True if (right, left) == (frozenset(axes[0]), frozenset(axes[1])) else None


def _in_order(
    left: Any, right: Any, part: Outer, axes: tuple[Axes, Axes], swapped: bool, *, both: bool
) -> tuple[Any, Any]:
    """The operator's sides for the part's left and right, rows in the part's order of features.

    A symmetric side is reordered on `both` of its axes, a basis on its rows only.
    """
    assert part.axes is not None
    _, *has = part.axes
    sizes = dict(zip((*has[0], *has[1]), part.dims, strict=True))
    pairs = [(left, axes[0]), (right, axes[1])]
    pairs = pairs[::-1] if swapped else pairs
    return tuple(  # type: ignore[return-value]
        _reordered(side, want, group, sizes, both)
        for (side, want), group in zip(pairs, has, strict=True)
    )


def _reordered(side: Any, stated: Axes, wanted: Axes, sizes: dict[int, int], both: bool) -> Any:
    """A side stated for features flattened in one order of axes, for another order."""
    if side is None or stated == wanted:
        return side
    index = jnp.arange(math.prod(sizes[a] for a in stated)).reshape([sizes[a] for a in stated])
    index = jnp.transpose(index, [stated.index(a) for a in wanted]).reshape(-1)
    side = side[index]
    return side[:, index] if both and side.ndim == 2 else side


def _embedding_as_outer(part: Embedding, left: Array, right: Array) -> Outer:
    shape = part.shape
    order = (0, *(a for a in range(1, len(shape)) if shape[a] != 1))
    dims = tuple(shape[a] for a in order)
    axes = ((), (0,), order[1:])
    return Outer(left[:, None], right[:, None], dims, tuple(range(len(dims))), None, axes)
