"""Dense products (`dot_general`): the use, its factors, and the data's cotangent."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture.plan import DATA, DenseUse, Static, Use, followed

__all__ = ["data_cotangent", "dense_use", "factors", "flatten_groups", "leaf_axes"]


def _sorted_by_root(view: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    return axes if view.axes is None else tuple(sorted(axes, key=lambda a: view.axes[a]))


def dense_use(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    """The use that a `dot_general` is, as a function of the use's index."""
    operand = 0 if isinstance(ins[0], Static) else 1
    if not followed(ins[operand]) or ins[1 - operand] != DATA:
        return None
    kind = ins[operand]
    contract, batch = eqn.params["dimension_numbers"]
    shape, other = eqn.invars[operand].aval.shape, eqn.invars[1 - operand].aval.shape
    blocks, contracting = tuple(batch[operand]), _sorted_by_root(kind.view, contract[operand])
    taken = {*blocks, *contracting}
    free = _sorted_by_root(kind.view, tuple(a for a in range(len(shape)) if a not in taken))
    data_taken = {*contract[1 - operand], *batch[1 - operand]}
    rows = math.prod(s for a, s in enumerate(other) if a not in data_taken)

    def sizes(axes: tuple[int, ...]) -> int:
        return math.prod(shape[a] for a in axes)

    return lambda index: DenseUse(
        index,
        kind.leaves,
        kind.view,
        "dense",
        kind.view.scopes,
        kind.layers,
        operand,
        tuple(shape),
        sizes(blocks),
        rows,
        sizes(contracting),
        sizes(free),
        eqn.invars[1 - operand].aval.dtype,
        eqn.outvars[0].aval.dtype,
        blocks,
        contracting,
        free,
    )


def flatten_groups(value: Array, *groups: tuple[int, ...]) -> Array:
    """Transposes and merges every group of axes into one."""
    sizes = tuple(math.prod(value.shape[a] for a in group) for group in groups)
    return jnp.transpose(value, tuple(a for g in groups for a in g)).reshape(sizes)


def _data_axes(eqn: Any, use: DenseUse, ndim: int) -> tuple[tuple[int, ...], ...]:
    """(row, block, contracting) axes of the data operand, in the use's order."""
    contract, batch = eqn.params["dimension_numbers"]
    side = 1 - use.operand
    partner = dict(zip(contract[use.operand], contract[side], strict=True))
    contracting = tuple(partner[a] for a in use.contracting)
    taken = {*contracting, *batch[side]}
    return tuple(a for a in range(ndim) if a not in taken), tuple(batch[side]), contracting


def factors(eqn: Any, use: DenseUse, data: Array, cotangent: Array) -> tuple[Array, Array]:
    """`(data [B, R, I], cotangent [B, R, J])` with axis groups in the use's order."""
    rows, blocks, contracting = _data_axes(eqn, use, data.ndim)
    left = flatten_groups(data, blocks, rows, contracting)
    # output axes: batch, then the free axes of the left and of the right operand
    nb, original = len(use.blocks), sorted(use.free)
    first = nb + (len(rows) if use.operand == 1 else 0)
    free = tuple(first + original.index(a) for a in use.free)
    row_start = nb + (0 if use.operand == 1 else len(free))
    row_axes = tuple(range(row_start, row_start + len(rows)))
    right = flatten_groups(cotangent, tuple(range(nb)), row_axes, free)
    return left, right


def data_cotangent(
    eqn: Any, use: DenseUse, data: Array, weight: Array, cotangent: Array, right: Array
) -> Array:
    """The data's cotangent, from the same `[B, R, J]` array that the statistic reads."""
    del cotangent
    rows, blocks, contracting = _data_axes(eqn, use, data.ndim)
    flat = flatten_groups(weight, use.blocks, use.contracting, use.free)
    numbers: Any = (((2,), (2,)), ((0,), (0,)))
    if use.num_blocks == 1:
        right, flat, numbers = right[0], flat[0], (((1,), (1,)), ((), ()))
    back = jax.lax.dot_general(
        right,
        flat,
        numbers,
        precision=eqn.params["precision"],
        preferred_element_type=data.dtype,
    )
    order = (*blocks, *rows, *contracting)
    back = back.reshape([data.shape[a] for a in order])
    return jnp.transpose(back, tuple(order.index(a) for a in range(data.ndim)))


def leaf_axes(use: DenseUse) -> tuple[tuple[int, ...], ...] | None:
    """(block, contracting, free) axes of the leaf, without those of length one; None if unknown."""
    if use.view is None or use.view.axes is None:
        return None
    named, root = use.view.axes, use.view.root_shape

    def names(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for n in (named[a] for a in axes) if n >= 0 and root[n] != 1)

    return names(use.blocks), names(use.contracting), names(use.free)
