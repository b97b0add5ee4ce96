"""One number per parameter."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.operators.arrays import accumulator, checked_array, dtype_of, lift, shape_of
from fishjax.operators.base import Operator, frozen_pytree
from fishjax.operators.generic import leaf_metrics, move_batch_first, multiply, to_dense
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

__all__ = ["Diagonal"]


@frozen_pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Diagonal(Operator):
    r"""$\mathrm{diag}(d)$, one number d for every parameter.

    Attributes:
      tree: pytree of floating-point arrays shaped like the parameters. Integer parameters are
        left out (None).

    Raises:
      ValueError: a leaf is not floating point; names its path.
    """

    tree: Any

    def __post_init__(self):
        _, _, treedef = flatten_with_paths(self.tree)
        leaves = [checked_array(f"diagonal {p!r}", leaf) for p, leaf in by_path(self.tree).items()]
        object.__setattr__(self, "tree", jax.tree.unflatten(treedef, leaves))


def _parts(operator: Diagonal, found: dict[str, Any], *, all_used: bool = True) -> dict[str, Any]:
    parts = matched("Diagonal", by_path(operator.tree), found, all_used=all_used)
    for path, part in parts.items():
        with naming(path):
            check_shape("the diagonal", shape_of(part), shape_of(found[path]))
    return parts


@multiply.register(Diagonal)
def _(operator: Diagonal, tree: Any) -> Any:
    found, treedef = floating_leaves(tree)
    parts = _parts(operator, found)
    product = [(parts[p] * lift(v, parts[p])).astype(dtype_of(v)) for p, v in found.items()]
    return jax.tree.unflatten(treedef, product)


@to_dense.register(Diagonal)
def _(operator: Diagonal, *, like: Any) -> Float[Array, "P P"]:
    found, _ = floating_leaves(like)
    dtype = accumulator(*found.values(), *jax.tree.leaves(operator))
    parts = [jnp.ravel(part).astype(dtype) for part in _parts(operator, found).values()]
    return jnp.diag(jnp.concatenate([jnp.zeros(0, dtype), *parts]))


@leaf_metrics.register(Diagonal)
def _(operator: Diagonal, params: Any) -> dict[str, Operator | None]:
    every = metric_paths(params)
    found = {path: leaf for path, leaf in every.items() if leaf is not None}
    parts = _parts(operator, found, all_used=False)
    return {path: Diagonal(parts[path]) if path in parts else None for path in every}


@move_batch_first.register(Diagonal)
def _(metric: Diagonal, batch_shape: tuple[int, ...]) -> Diagonal:
    for part in jax.tree.leaves(metric.tree):
        check_stacked("the diagonal", part, batch_shape)
    return metric
