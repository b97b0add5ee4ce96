"""A sum of outer products over all parameters, plus a diagonal."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.operators.arrays import (
    accumulator,
    checked_array,
    dtype_of,
    einsum,
    lift,
    shape_of,
)
from fishjax.operators.base import Operator, frozen_pytree, rebuild
from fishjax.operators.diagonal import Diagonal
from fishjax.operators.generic import (
    leaf_metrics,
    move_batch_first,
    multiply,
    quadratic,
    to_dense,
)
from fishjax.operators.isotropic import Isotropic
from fishjax.operators.matching import (
    by_path,
    check_shape,
    floating_leaves,
    matched,
    metric_paths,
    naming,
)
from fishjax.operators.stacking import check_stacked
from fishjax.trees import flatten_with_paths

__all__ = ["LowRankPlusDiagonal"]


@frozen_pytree
@dataclasses.dataclass(frozen=True, eq=False)
class LowRankPlusDiagonal(Operator):
    r"""$v \mapsto d \odot v + \sum_k u_k \langle u_k, v\rangle$.

    The inner products run over all parameters: the only type here that couples them. The $u_k$
    need not be orthogonal.

    Attributes:
      basis: pytree like the parameters; each leaf `[r, *leaf shape]` holds its part of the r
        vectors $u_k$. Integer parameters are left out (None).
      diagonal: d, a pytree like the parameters, or a number for a multiple of the identity.

    Raises:
      ValueError: a leaf is not floating point, the leaves of `basis` differ in r, or
        `diagonal` differs from `basis` in paths or shapes; names the first such path.

    Example:
      >>> import jax.numpy as jnp
      >>> from fishjax import operators
      >>> basis = {"a": jnp.array([[1.0, 0.0]]), "b": jnp.array([2.0])}       # r = 1
      >>> covariance = operators.LowRankPlusDiagonal(basis, diagonal=0.5)
      >>> v = {"a": jnp.array([1.0, 1.0]), "b": jnp.array(1.0)}               # <u, v> = 3
      >>> operators.multiply(covariance, v)["b"].item()
      6.5

    References:
      Maddox et al. (2019), arXiv 1902.02476: the covariance of SWAG has this form.
    """

    basis: Any
    diagonal: Any

    def __post_init__(self):
        basis = _checked(self.basis, "basis")
        ranks = {path: shape_of(leaf)[:1] for path, leaf in by_path(basis).items()}
        if () in ranks.values() or len(set(ranks.values())) != 1:
            listed = {path: rank[0] if rank else "no axis" for path, rank in ranks.items()}
            raise ValueError(
                f"basis has r = {listed}: expected leaves [r, *leaf shape] with one r for all; "
                "put the axis of the r vectors first in every leaf"
            )
        diagonal = _checked(self.diagonal, "diagonal")
        if not _is_scalar(diagonal):
            expected = {path: shape_of(leaf)[1:] for path, leaf in by_path(basis).items()}
            for path, part in matched("diagonal", by_path(diagonal), expected).items():
                with naming(path):
                    check_shape("the diagonal", shape_of(part), expected[path])
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "diagonal", diagonal)


def _checked(tree: Any, name: str) -> Any:
    leaves = [
        checked_array(f"{name} {p!r}" if p else name, leaf) for p, leaf in by_path(tree).items()
    ]
    return jax.tree.unflatten(flatten_with_paths(tree)[2], leaves)


def _is_scalar(diagonal: Any) -> bool:
    return hasattr(diagonal, "shape") and shape_of(diagonal) == ()


def _diagonal(operator: LowRankPlusDiagonal) -> Isotropic | Diagonal:
    """The diagonal part as an operator of its own."""
    if _is_scalar(operator.diagonal):
        return rebuild(Isotropic(0.0), scale=operator.diagonal)
    return rebuild(Diagonal({}), tree=operator.diagonal)


def _bases(
    operator: LowRankPlusDiagonal, found: dict[str, Any], *, all_used: bool = True
) -> dict[str, Any]:
    parts = matched("LowRankPlusDiagonal", by_path(operator.basis), found, all_used=all_used)
    for path, part in parts.items():
        with naming(path):
            check_shape("one vector of the basis", shape_of(part)[1:], shape_of(found[path]))
    return parts


def _coefficients(bases: dict[str, Any], found: dict[str, Any]) -> Array:
    """`[r]` inner products, summed over all parameters."""
    terms = [einsum("k...,...->k", bases[path], leaf) for path, leaf in found.items()]
    return sum(terms[1:], start=terms[0])


@multiply.register(LowRankPlusDiagonal)
def _(operator: LowRankPlusDiagonal, tree: Any) -> Any:
    found, treedef = floating_leaves(tree)
    bases = _bases(operator, found)
    coefficients = _coefficients(bases, found)
    held = jax.tree.leaves(operator)
    lifted = jax.tree.unflatten(treedef, [lift(leaf, *held) for leaf in found.values()])
    scaled = jax.tree.leaves(multiply(_diagonal(operator), lifted))
    product = [
        (part + einsum("k,k...->...", coefficients, bases[path])).astype(dtype_of(leaf))
        for (path, leaf), part in zip(found.items(), scaled, strict=True)
    ]
    return jax.tree.unflatten(treedef, product)


@quadratic.register(LowRankPlusDiagonal)
def _(operator: LowRankPlusDiagonal, tree: Any) -> Float[Array, ""]:
    r"""$\sum_i d_i v_i^2 + \sum_k \langle u_k, v\rangle^2$: never negative for d ≥ 0."""
    found, _ = floating_leaves(tree)
    coefficients = _coefficients(_bases(operator, found), found)
    return quadratic(_diagonal(operator), tree) + jnp.sum(coefficients**2)


@to_dense.register(LowRankPlusDiagonal)
def _(operator: LowRankPlusDiagonal, *, like: Any) -> Float[Array, "P P"]:
    found, _ = floating_leaves(like)
    bases = _bases(operator, found)
    rank = shape_of(next(iter(bases.values())))[0]
    dtype = accumulator(*found.values(), *jax.tree.leaves(operator))
    rows = [part.reshape(rank, -1).astype(dtype) for part in bases.values()]
    vectors = jnp.concatenate(rows, axis=1)
    return to_dense(_diagonal(operator), like=like) + einsum("kp,kq->pq", vectors, vectors)


@leaf_metrics.register(LowRankPlusDiagonal)
def _(operator: LowRankPlusDiagonal, params: Any) -> dict[str, Operator | None]:
    every = metric_paths(params)
    found = {path: leaf for path, leaf in every.items() if leaf is not None}
    bases = _bases(operator, found, all_used=False)
    if _is_scalar(operator.diagonal):
        parts = dict.fromkeys(found, operator.diagonal)
    else:
        parts = matched("diagonal", by_path(operator.diagonal), found, all_used=False)
    return {
        path: LowRankPlusDiagonal(bases[path], parts[path]) if path in bases else None
        for path in every
    }


@move_batch_first.register(LowRankPlusDiagonal)
def _(metric: LowRankPlusDiagonal, batch_shape: tuple[int, ...]) -> LowRankPlusDiagonal:
    def moved(part: Array) -> Array:
        first = jnp.moveaxis(part, 0, min(len(batch_shape), part.ndim - 1))
        check_stacked("one vector of the basis", first, batch_shape)
        return first

    if _is_scalar(metric.diagonal):
        diagonal = jnp.broadcast_to(metric.diagonal, batch_shape)
    else:
        diagonal = metric.diagonal
        for part in jax.tree.leaves(diagonal):
            check_stacked("the diagonal", part, batch_shape)
    return rebuild(metric, basis=jax.tree.map(moved, metric.basis), diagonal=diagonal)
