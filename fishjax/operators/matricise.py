"""One parameter as a matrix: its axes split into left and right, flattened row-major."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

__all__ = ["Layout", "checked_axes", "layout_of"]

Axes = tuple[int, ...] | None


def checked_axes(left_axes: Axes, right_axes: Axes, batch: int) -> tuple[Axes, Axes]:
    """Axes as tuples of integers.

    Raises:
      ValueError: an axis is negative or named twice, or together they skip one.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
        raise ValueError(
            f"batch is {batch!r}: expected the number of leading stacked axes, 0 or more"
        )
    left = None if left_axes is None else tuple(int(a) for a in left_axes)
    right = None if right_axes is None else tuple(int(a) for a in right_axes)
    named = (*(left or ()), *(right or ()))
    complete = left is not None and right is not None
    if min(named, default=0) < 0 or len(set(named)) < len(named):
        problem = "every axis once, counted from 0 after the stacked axes"
    elif complete and sorted(named) != list(range(len(named))):
        problem = f"together every axis from 0 to {max(named)}"
    else:
        return left, right
    raise ValueError(f"left_axes={left} and right_axes={right}: expected {problem}")


class Layout(NamedTuple):
    """How a leaf `[*batch, *shape]` becomes `[*batch, I, J]`.

    Attributes:
      shape: shape of the leaf, stacked axes first.
      batch: number of stacked axes.
      left: axes of the unbatched leaf that make I.
      right: axes of the unbatched leaf that make J.
    """

    shape: tuple[int, ...]
    batch: int
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """`(*batch, I, J)`."""
        core = self.shape[self.batch :]
        sizes = (math.prod(core[a] for a in axes) for axes in (self.left, self.right))
        return (*self.shape[: self.batch], *sizes)

    def _split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(permutation from leaf to split order, shape in split order)."""
        moved = (self.batch + a for a in (*self.left, *self.right))
        order = (*range(self.batch), *moved)
        return order, tuple(self.shape[a] for a in order)

    def to_matrix(self, leaf: Array) -> Array:
        """`[*batch, *shape]` to `[*batch, I, J]`."""
        return jnp.transpose(leaf, self._split()[0]).reshape(self.matrix_shape)

    def from_matrix(self, matrix: Array) -> Array:
        """`[*batch, I, J]` to `[*batch, *shape]`."""
        order, shape = self._split()
        return jnp.transpose(matrix.reshape(shape), _inverse(order))

    def to_block(self, blocks: Array) -> Array:
        """`[*batch, I·J, I·J]` on flattened matrices to `[P, P]` on the raveled leaf."""
        core = self.shape[self.batch :]
        order = (*self.left, *self.right)
        split = tuple(core[a] for a in order)
        back = _inverse(order)
        layers = math.prod(self.shape[: self.batch])
        both = (0, *(1 + a for a in back), *(1 + len(core) + a for a in back))
        blocks = jnp.transpose(blocks.reshape(layers, *split, *split), both)
        size = math.prod(core)
        blocks = blocks.reshape(layers, size, size)
        stacked = jnp.zeros((layers, size, layers, size), blocks.dtype)
        every = jnp.arange(layers)
        return stacked.at[every, :, every, :].set(blocks).reshape(layers * size, layers * size)


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(permutation.index(a) for a in range(len(permutation)))


def layout_of(leaf_shape: tuple[int, ...], axes: tuple[Axes, Axes], batch: int) -> Layout:
    """The layout of a leaf; where no axes are given, right is the last one and left the others.

    Raises:
      ValueError: the leaf has fewer axes than `batch`, or other axes than those named.
    """
    ndim = len(leaf_shape) - batch
    left, right = axes
    if ndim < 0:
        raise ValueError(
            f"the leaf has shape {leaf_shape} but the factors are stacked over batch={batch} axes: "
            "expected those axes first; pass the whole stacked leaf, or factors of one layer"
        )
    every = range(ndim)
    if left is None and right is None:
        right = tuple(every)[-1:]
    if left is None:
        left = tuple(a for a in every if a not in (right or ()))
    if right is None:
        right = tuple(a for a in every if a not in left)
    if sorted((*left, *right)) != list(every):
        raise ValueError(
            f"left_axes={left} and right_axes={right} with batch={batch} name other axes than the "
            f"leaf of shape {leaf_shape} has: expected every axis from 0 to {ndim - 1} once, "
            "counted after the stacked axes"
        )
    return Layout(tuple(leaf_shape), batch, left, right)
