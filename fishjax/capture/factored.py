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

__all__ = [
    "Embedding",
    "Gradient",
    "Materialised",
    "Outer",
    "Sum",
    "accumulator",
    "each",
    "merged",
    "summed",
]

_Container = TypeVar("_Container")
Leaf = Any  # an array, or its shape while a program is only being traced

_HIGHEST = jax.lax.Precision.HIGHEST


def accumulator(dtype: Any) -> Any:
    """The dtype statistics are accumulated in: float32, or float64 for float64 models."""
    return jnp.promote_types(dtype, jnp.float32)


def each(shared: Array, n: int) -> Array:
    """Rows shared by several outputs of an example, written out: `[N / K, ...]` to `[N, ...]`."""
    return shared if shared.shape[0] == n else jnp.repeat(shared, n // shared.shape[0], axis=0)


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

    def weighted_sum(self, weights: Array) -> Array:
        """`sum_n weights[n] gradient[n]`, `[*shape]`."""
        return jnp.tensordot(weights, self.gradient, axes=1, precision=_HIGHEST)


@_container
@dataclasses.dataclass(frozen=True)
class Outer:
    """`gradient[n, b, i, j] = sum_r left[n, b, r, i] right[n, b, r, j]`.

    Attributes:
      left: `[N, B, R, I]`. B counts independent blocks (heads, experts), R rows (tokens).
      right: `[N, B, R, J]`. One of the two comes from the data, the other from the cotangent. For
        K outputs per example the data's has only N / K rows, each shared by K consecutive ones.
      dims: sizes of the parameter's axes in block, left, right order.
      permutation: takes axes in that order to the order of the operand's axes.
      restore: takes `[N, *operand shape]` to `[N, *parameter shape]`, None where they agree.
      axes: (block, left, right) axes of the parameter, without those of length one; None where
        the parameter enters in another shape.
      data_on_left: whether left is the side that comes from the data.
    """

    left: Leaf
    right: Leaf
    dims: tuple[int, ...] = _static()
    permutation: tuple[int, ...] = _static()
    restore: Callable[[Array], Array] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )
    axes: tuple[tuple[int, ...], ...] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )
    data_on_left: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def num_examples(self) -> int:
        """N."""
        return max(self.left.shape[0], self.right.shape[0])

    @property
    def dtype(self) -> Any:
        """The coarser factors' common dtype."""
        return jnp.promote_types(self.left.dtype, self.right.dtype)

    @property
    def layout(self) -> tuple[Any, ...]:
        """How the parameter's axes are stated: equal for gradients that can be added by rows."""
        return self.dims, self.permutation, self.axes, self.restore, self.data_on_left

    def unshaped(self) -> Array:
        """The gradients as `[N, B, I, J]`, accumulated in float32 or float64."""
        left, right = (each(side, self.num_examples) for side in (self.left, self.right))
        spec = "nbri,nbrj->nbij"
        if left.shape[1] == 1:  # for an axis of length one XLA's CPU backend copies both factors
            left, right, spec = left[:, 0], right[:, 0], "nri,nrj->nij"
        dtype = accumulator(self.dtype)
        dense = jnp.einsum(spec, left, right, precision=_HIGHEST, preferred_element_type=dtype)
        return dense if dense.ndim == 4 else dense[:, None]

    def materialise(self) -> Array:
        """`[N, *shape]`, accumulated in float32 or float64."""
        return self.shaped(self.unshaped().reshape(-1, *self.dims))

    def weighted_sum(self, weights: Array) -> Array:
        """`sum_n weights[n] gradient[n]` as one product, `[*shape]`."""
        left = each(self.left, self.num_examples)
        dtype = accumulator(self.dtype)
        dense = jnp.einsum(
            "nbri,nbrj->bij",
            left,
            each(self.right, self.num_examples).astype(dtype)
            * weights.astype(dtype)[:, None, None, None],
            precision=_HIGHEST,
            preferred_element_type=dtype,
        )
        return self.shaped(dense.reshape(1, *self.dims))[0]

    def shaped(self, dense: Array) -> Array:
        """From `[N, *dims]` to `[N, *shape]`."""
        dense = jnp.transpose(dense, (0, *(1 + p for p in self.permutation)))
        return dense if self.restore is None else self.restore(dense)


@_container
@dataclasses.dataclass(frozen=True)
class Embedding:
    """`gradient[n, v] = sum_r 1[ids[n, r] = v] right[n, r]`; ids outside `[0, V)` add nothing.

    Attributes:
      ids: `[N, R]`, floating so that it can travel through a cotangent; exact below 2**24. For K
        outputs per example it has a K-th of the rows of `right`, as in `Outer`.
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
        """`[N, R]` integer row numbers, one row for each of `right`."""
        return each(self.ids.astype(jnp.int32), self.num_examples)

    def materialise(self) -> Array:
        """`[N, *shape]`, accumulated in float32 or float64."""
        right = self.right.astype(accumulator(self.right.dtype))
        zeros = jnp.zeros((self.shape[0], right.shape[-1]), right.dtype)
        scatter = jax.vmap(lambda i, g: zeros.at[i].add(g, mode="drop"))
        dense = scatter(self.indices, right).reshape(-1, *self.shape)
        return dense if self.restore is None else self.restore(dense)

    def weighted_sum(self, weights: Array) -> Array:
        """`sum_n weights[n] gradient[n]`, `[*shape]`."""
        right = self.right.astype(accumulator(self.right.dtype)) * weights[:, None, None]
        dense = jnp.zeros((self.shape[0], right.shape[-1]), right.dtype)
        dense = dense.at[self.indices.reshape(-1)].add(
            right.reshape(-1, right.shape[-1]), mode="drop"
        )
        dense = dense.reshape(1, *self.shape)
        return (dense if self.restore is None else self.restore(dense))[0]


@_container
@dataclasses.dataclass(frozen=True)
class Sum:
    """One parameter used several times: its gradient is the sum over the uses.

    Attributes:
      parts: the gradients of the uses.
      disjoint: whether no two uses meet the same entry, so that their gradients are orthogonal.
    """

    parts: tuple[Any, ...]
    disjoint: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def num_examples(self) -> int:
        """N."""
        return self.parts[0].num_examples

    def materialise(self) -> Array:
        """`[N, *shape]`."""
        return functools.reduce(jnp.add, (part.materialise() for part in self.parts))

    def weighted_sum(self, weights: Array) -> Array:
        """`sum_n weights[n] gradient[n]`, `[*shape]`."""
        return functools.reduce(jnp.add, (part.weighted_sum(weights) for part in self.parts))


Gradient = Materialised | Outer | Embedding | Sum


def summed(parts: tuple[Any, ...], disjoint: bool) -> Gradient:
    """The gradient of a parameter whose uses have these gradients."""
    if all(isinstance(part, Materialised) for part in parts):
        return Materialised(functools.reduce(jnp.add, (part.gradient for part in parts)))
    return parts[0] if len(parts) == 1 else Sum(parts, disjoint)


def merged(gradient: Gradient) -> Gradient:
    """The same gradient; outer products that are stated alike become one, rows after each other.

    Forming it is then one product, and no dense gradients are added.
    """
    if not isinstance(gradient, Sum) or gradient.disjoint:
        return gradient
    alike: dict[Any, list[Any]] = {}
    for i, part in enumerate(gradient.parts):
        key = (*part.layout, part.left.dtype, part.right.dtype) if isinstance(part, Outer) else i
        alike.setdefault(key, []).append(part)
    parts = tuple(map(_rows_together, alike.values()))
    return parts[0] if len(parts) == 1 else Sum(parts)


def _rows_together(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    left, right = (
        jnp.concatenate([getattr(part, side) for part in parts], axis=2)
        for side in ("left", "right")
    )
    return dataclasses.replace(parts[0], left=left, right=right)
