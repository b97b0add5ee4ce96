"""Per-example gradients of one parameter, in the form in which backpropagation yields them.

A dense layer's gradient is a sum of outer products `sum_r left_r right_r^T`, an embedding's is
the same with one-hot `left`; only small parameters (norm scales, biases) are materialised.
Statistics are functions of these containers and never need the gradient itself.

All arrays have the example axis N first. Containers are pytrees.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Embedding", "Gradient", "Materialised", "Outer", "Sum", "accumulator"]

_Container = TypeVar("_Container")
Leaf = Any  # an array, or its shape while a program is only being traced

_HIGHEST = jax.lax.Precision.HIGHEST


def accumulator(dtype: Any) -> Any:
    """The dtype statistics are accumulated in: float32, or float64 for float64 models."""
    return jnp.promote_types(dtype, jnp.float32)


def _container(cls: type[_Container]) -> type[_Container]:
    fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if not f.metadata.get("static")]
    return jax.tree_util.register_dataclass(cls, data, static)


def _static() -> Any:
    return dataclasses.field(metadata={"static": True})


@_container
@dataclasses.dataclass(frozen=True)
class Materialised:
    """The gradients themselves, `[N, *shape]`."""

    gradient: Leaf

    @property
    def num_examples(self) -> int:
        """N."""
        return self.gradient.shape[0]

    def materialise(self) -> Array:
        """`[N, *shape]`."""
        return self.gradient


@_container
@dataclasses.dataclass(frozen=True)
class Outer:
    """`gradient[n, b, i, j] = sum_r left[n, b, r, i] right[n, b, r, j]`.

    Attributes:
      left: `[N, B, R, I]`.
      right: `[N, B, R, J]`. B counts independent blocks (heads, experts), R rows (tokens).
      dims: sizes of the parameter's axes in block, left, right order.
      permutation: takes axes in that order to the order of the operand's axes.
      restore: takes `[N, *operand shape]` to `[N, *parameter shape]`, None where they agree.
    """

    left: Leaf
    right: Leaf
    dims: tuple[int, ...] = _static()
    permutation: tuple[int, ...] = _static()
    restore: Callable[[Array], Array] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    @property
    def num_examples(self) -> int:
        """N."""
        return self.left.shape[0]

    def materialise(self) -> Array:
        """`[N, *shape]`, accumulated in float32 or float64."""
        dense = jnp.einsum(
            "nbri,nbrj->nbij",
            self.left,
            self.right,
            precision=_HIGHEST,
            preferred_element_type=accumulator(self.right.dtype),
        )
        dense = dense.reshape(dense.shape[0], *self.dims)
        dense = jnp.transpose(dense, (0, *(1 + p for p in self.permutation)))
        return dense if self.restore is None else self.restore(dense)


@_container
@dataclasses.dataclass(frozen=True)
class Embedding:
    """`gradient[n, v] = sum_r 1[ids[n, r] = v] right[n, r]`; ids outside `[0, V)` add nothing.

    Attributes:
      ids: `[N, R]`, floating so that it can travel through a cotangent; exact below 2**24.
      right: `[N, R, F]`.
      shape: the table's shape `(V, ...)` with F the product of the rest.
      restore: takes `[N, *table shape]` to `[N, *parameter shape]`, None where they agree.
    """

    ids: Leaf
    right: Leaf
    shape: tuple[int, ...] = _static()
    restore: Callable[[Array], Array] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )

    @property
    def num_examples(self) -> int:
        """N."""
        return self.right.shape[0]

    @property
    def indices(self) -> Array:
        """`[N, R]` integer row numbers."""
        return self.ids.astype(jnp.int32)

    def materialise(self) -> Array:
        """`[N, *shape]`, accumulated in float32 or float64."""
        right = self.right.astype(accumulator(self.right.dtype))
        zeros = jnp.zeros((self.shape[0], right.shape[-1]), right.dtype)
        scatter = jax.vmap(lambda i, g: zeros.at[i].add(g, mode="drop"))
        dense = scatter(self.indices, right).reshape(-1, *self.shape)
        return dense if self.restore is None else self.restore(dense)


@_container
@dataclasses.dataclass(frozen=True)
class Sum:
    """One parameter used several times: its gradient is the sum over the uses."""

    parts: tuple[Any, ...]

    @property
    def num_examples(self) -> int:
        """N."""
        return self.parts[0].num_examples

    def materialise(self) -> Array:
        """`[N, *shape]`."""
        return functools.reduce(jnp.add, (part.materialise() for part in self.parts))


Gradient = Materialised | Outer | Embedding | Sum
