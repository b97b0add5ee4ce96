"""One side of a Kronecker product: a matrix, a diagonal stored as a vector, or the identity."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from fishjax.operators.arrays import checked_array, matmul, shape_of

__all__ = ["as_matrix", "check_fits", "checked_side", "multiply_left", "multiply_right"]

Side = Any  # Array | None


def checked_side(name: str, side: Side, batch: int, *, vectors: bool = True) -> Side:
    """A side as a floating-point array `[*batch, D, D]` or `[*batch, D]`, or None.

    Raises:
      ValueError: not floating point, not square, or another number of axes.
    """
    if side is None:
        return None
    side = checked_array(name, side)
    shape = shape_of(side)
    core = shape[batch:]
    if (len(core) == 2 and core[0] == core[1]) or (vectors and len(core) == 1):
        return side
    expected = "[*batch, D, D]" + (" or, for a diagonal, [*batch, D]" if vectors else "")
    raise ValueError(
        f"{name} has shape {shape} with batch={batch}: expected a square {expected}; "
        "set batch to the number of leading stacked axes, or use None for the identity"
    )


def check_fits(name: str, side: Side, batch_shape: tuple[int, ...], size: int, why: str) -> None:
    """Raises ValueError unless the side has the leaf's stacked axes and `size` rows."""
    if side is None:
        return
    core = len(shape_of(side)) - len(batch_shape)
    expected = (*batch_shape, *(size,) * core)
    if shape_of(side) != expected:
        raise ValueError(
            f"{name} has shape {shape_of(side)}: expected {expected}, because {why}; "
            "check the axes and batch of the factors"
        )


def _is_vector(side: Array, matrix: Array) -> bool:
    return side.ndim == matrix.ndim - 1


def multiply_left(side: Side, matrix: Array) -> Array:
    """`S W` for W `[*batch, I, J]`."""
    if side is None:
        return matrix
    return side[..., :, None] * matrix if _is_vector(side, matrix) else matmul(side, matrix)


def multiply_right(matrix: Array, side: Side) -> Array:
    """`W S` for W `[*batch, I, J]`."""
    if side is None:
        return matrix
    return matrix * side[..., None, :] if _is_vector(side, matrix) else matmul(matrix, side)


def as_matrix(side: Side, batch_shape: tuple[int, ...], size: int, dtype: Any) -> Array:
    """`[*batch, D, D]` in full."""
    identity = jnp.broadcast_to(jnp.eye(size, dtype=dtype), (*batch_shape, size, size))
    if side is None:
        return identity
    side = side.astype(dtype)
    return side[..., None] * identity if side.ndim == identity.ndim - 1 else side
