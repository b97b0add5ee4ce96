"""A multiple of the identity."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.operators.arrays import accumulator, checked_array, dtype_of, lift, shape_of
from fishjax.operators.base import Operator, frozen_pytree, rebuild
from fishjax.operators.generic import leaf_metrics, move_batch_first, multiply, to_dense
from fishjax.operators.matching import floating_leaves, metric_paths

__all__ = ["Isotropic"]


@frozen_pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Isotropic(Operator):
    r"""$s I$ on any tree: the covariance of Grünefeld et al. (2026), arXiv 2603.29466.

    Attributes:
      scale: a number or a scalar floating-point array s, of any sign.

    Raises:
      ValueError: the scale is not a scalar, or not floating point.
    """

    scale: Any

    def __post_init__(self):
        scale = checked_array("scale", self.scale)
        if shape_of(scale) != ():
            raise ValueError(
                f"scale has shape {shape_of(scale)}: expected a scalar; "
                "use Diagonal for one number per parameter"
            )
        object.__setattr__(self, "scale", scale)


@multiply.register(Isotropic)
def _(operator: Isotropic, tree: Any) -> Any:
    scale = operator.scale
    found, treedef = floating_leaves(tree)
    product = [(scale * lift(v, scale)).astype(dtype_of(v)) for v in found.values()]
    return jax.tree.unflatten(treedef, product)


@to_dense.register(Isotropic)
def _(operator: Isotropic, *, like: Any) -> Float[Array, "P P"]:
    leaves = floating_leaves(like)[0].values()
    size = sum(math.prod(shape_of(leaf)) for leaf in leaves)
    return operator.scale * jnp.eye(size, dtype=accumulator(operator.scale, *leaves))


@leaf_metrics.register(Isotropic)
def _(operator: Isotropic, params: Any) -> dict[str, Operator | None]:
    return {p: None if leaf is None else operator for p, leaf in metric_paths(params).items()}


@move_batch_first.register(Isotropic)
def _(metric: Isotropic, batch_shape: tuple[int, ...]) -> Isotropic:
    return rebuild(metric, scale=jnp.broadcast_to(metric.scale, batch_shape))
