"""Operators with one independent block per parameter: every function goes block by block."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

from fishjax.operators.arrays import accumulator
from fishjax.operators.base import Operator
from fishjax.operators.generic import leaf_metrics, multiply, quadratic, to_dense
from fishjax.operators.matching import floating_leaves, matched, metric_paths, naming

__all__ = ["block_per_parameter", "checked_blocks"]

_Class = TypeVar("_Class")


def checked_blocks(holder: str, factors: Any, kind: type) -> dict[str, Any]:
    """The mapping from path to block as a dict.

    Raises:
      ValueError: not a mapping, a key is no string, or a value is not of the kind.
    """
    if not isinstance(factors, Mapping):
        raise ValueError(
            f"{holder} got a {type(factors).__name__}: expected a dict from path, as "
            f"'layers/attention/query', to {kind.__name__}"
        )
    for path, block in factors.items():
        if not isinstance(path, str) or not isinstance(block, kind):
            raise ValueError(
                f"{holder} has {type(block).__name__} under {path!r}: expected {kind.__name__} "
                "under a path string such as 'layers/attention/query'"
            )
    return dict(factors)


def block_per_parameter(cls: type[_Class]) -> type[_Class]:
    """Registers the generic functions for a type whose `factors` maps path to leaf operator.

    The blocks are operators on one array; each function calls itself on every block.
    """
    name = cls.__name__

    def pairs(operator: Any, found: dict[str, Any], *, all_used: bool = True) -> list[Any]:
        blocks = matched(name, operator.factors, found, all_used=all_used)
        return [(path, blocks[path], leaf) for path, leaf in found.items()]

    @multiply.register(cls)
    def _(operator: Any, tree: Any) -> Any:
        found, treedef = floating_leaves(tree)
        product = []
        for path, block, leaf in pairs(operator, found):
            with naming(path):
                product.append(multiply(block, leaf))
        return jax.tree.unflatten(treedef, product)

    @quadratic.register(cls)
    def _(operator: Any, tree: Any) -> Float[Array, ""]:
        total = jnp.zeros((), jnp.float32)
        for path, block, leaf in pairs(operator, floating_leaves(tree)[0]):
            with naming(path):
                total = total + quadratic(block, leaf)
        return total

    @to_dense.register(cls)
    def _(operator: Any, *, like: Any) -> Float[Array, "P P"]:
        found, _ = floating_leaves(like)
        dtype = accumulator(*found.values(), *jax.tree.leaves(operator))
        dense = [jnp.zeros((0, 0), dtype)]
        for path, block, leaf in pairs(operator, found):
            with naming(path):
                dense.append(to_dense(block, like=leaf).astype(dtype))
        return block_diag(*dense)

    @leaf_metrics.register(cls)
    def _(operator: Any, params: Any) -> dict[str, Operator | None]:
        every = metric_paths(params)
        metrics: dict[str, Operator | None] = dict.fromkeys(every)
        found = {path: leaf for path, leaf in every.items() if leaf is not None}
        for path, block, leaf in pairs(operator, found, all_used=False):
            with naming(path):
                metrics[path] = leaf_metrics(block, leaf)[""]
        return metrics

    return cls
