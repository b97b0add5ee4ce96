"""The custom derivatives at a use: they hand the statistic out and no weight gradient.

Each operation has one extra argument, a zero *ticket* shaped like the statistic. The backward
rule returns the input's cotangent as usual, nothing for the weight, and as the ticket's
cotangent the statistic of this use. It runs for one example under a `vmap` with a named axis;
`gather` makes the explicit `[N, ...]` array, at no cost.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture import layout
from fishjax.capture.adapter import bind
from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer
from fishjax.capture.forms import factor_axes
from fishjax.capture.plan import DenseUse, EmbeddingUse, TapUse

__all__ = [
    "AXIS",
    "dense_container",
    "dense_site",
    "embedding_container",
    "embedding_site",
    "shadow_site",
    "tap_site",
]

AXIS = "fishjax_examples"

Finish = Callable[[Gradient], Any]


def gather(value: Array) -> Array:
    """`[...]` of one example to `[N, ...]` of all."""
    return jax.lax.all_gather(value, AXIS)


def _flatten_groups(value: Array, *groups: tuple[int, ...]) -> Array:
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


def _factors(eqn: Any, use: DenseUse, data: Array, cotangent: Array) -> tuple[Array, Array]:
    """`(data [B, R, I], cotangent [B, R, J])` with axis groups in the use's order."""
    rows, blocks, contracting = _data_axes(eqn, use, data.ndim)
    left = _flatten_groups(data, blocks, rows, contracting)
    # output axes: batch, then the free axes of the left and of the right operand
    nb, original = len(use.blocks), sorted(use.free)
    first = nb + (len(rows) if use.operand == 1 else 0)
    free = tuple(first + original.index(a) for a in use.free)
    row_start = nb + (0 if use.operand == 1 else len(free))
    row_axes = tuple(range(row_start, row_start + len(rows)))
    right = _flatten_groups(cotangent, tuple(range(nb)), row_axes, free)
    return left, right


def dense_container(use: DenseUse, left: Array, right: Array, joint: bool) -> Outer:
    """The container, in the operand's coordinates, or in the leaf's for a joint form."""
    assert use.view is not None
    right = right if use.view.scale == 1.0 else right * use.view.scale
    if not joint:
        order = (*use.blocks, *use.contracting, *use.free)
        dims = tuple(use.operand_shape[a] for a in order)
        permutation = tuple(order.index(a) for a in range(len(order)))
        return Outer(left, right, dims, permutation, layout.restorer(use.view))
    axes = factor_axes(use)
    assert axes is not None
    blocks, first, second = axes
    named = use.view.axes
    assert named is not None
    contracted = tuple(
        a for a in (named[c] for c in use.contracting) if a >= 0 and use.view.root_shape[a] != 1
    )
    if contracted != first:
        left, right = right, left
    order = (*blocks, *first, *second)
    kept = sorted(order)
    shape = use.view.root_shape
    permutation = tuple(order.index(a) for a in kept)
    restore = None
    if len(kept) != len(shape):
        restore = _Reshape(shape)
    return Outer(left, right, tuple(shape[a] for a in order), permutation, restore)


class _Reshape:
    """Puts back axes of length one."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __call__(self, gradient: Array) -> Array:
        return gradient.reshape(-1, *self.shape)


def _data_cotangent(eqn: Any, use: DenseUse, data: Array, weight: Array, right: Array) -> Array:
    """The data's cotangent, from the same `[B, R, J]` array that the statistic reads."""
    rows, blocks, contracting = _data_axes(eqn, use, data.ndim)
    flat = _flatten_groups(weight, use.blocks, use.contracting, use.free)
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


def dense_site(eqn: Any, use: DenseUse, finish: Finish, joint: bool) -> Callable[..., Array]:
    """`(data, weight, ticket) -> product`, whose ticket receives `finish(gradient)`."""

    def product(data: Array, weight: Array) -> Array:
        return bind(eqn, *((weight, data) if use.operand == 0 else (data, weight)))[0]

    @jax.custom_vjp
    def site(data: Array, weight: Array, ticket: Any) -> Array:
        del ticket
        return product(data, weight)

    def forward(data: Array, weight: Array, ticket: Any) -> tuple[Array, Any]:
        del ticket
        return product(data, weight), (data, weight)

    def backward(saved: Any, cotangent: Array) -> tuple[Array, None, Any]:
        data, weight = saved
        left, right = _factors(eqn, use, data, cotangent)
        back = _data_cotangent(eqn, use, data, weight, right)
        return back, None, finish(dense_container(use, gather(left), gather(right), joint))

    site.defvjp(forward, backward)
    return site


def embedding_container(use: EmbeddingUse, ids: Array, right: Array, joint: bool) -> Embedding:
    """The container of an embedding's gradients, `[N, R]` ids and `[N, R, F]` cotangents."""
    assert use.view is not None
    right = right if use.view.scale == 1.0 else right * use.view.scale
    shape = use.view.root_shape if joint else use.operand_shape
    return Embedding(ids, right, shape, None if joint else layout.restorer(use.view))


def embedding_site(
    eqn: Any, use: EmbeddingUse, finish: Finish, joint: bool
) -> Callable[..., Array]:
    """`(indices, table, ticket) -> rows`, whose ticket receives `finish(gradient)`."""
    numbers = eqn.params["dimension_numbers"]

    @jax.custom_vjp
    def site(indices: Array, table: Array, ticket: Any) -> Array:
        del ticket
        return bind(eqn, table, indices)[0]

    def forward(indices: Array, table: Array, ticket: Any) -> tuple[Array, Any]:
        del ticket
        return bind(eqn, table, indices)[0], indices

    def backward(indices: Array, cotangent: Array) -> tuple[None, None, Any]:
        offsets = tuple(numbers.offset_dims)
        rows = tuple(a for a in range(cotangent.ndim) if a not in offsets)
        right = _flatten_groups(cotangent, rows, offsets)
        ids = indices[..., 0].reshape(-1)
        inside = (ids >= 0) & (ids < use.vocabulary)
        if not use.clip:  # rows that the gather filled have no gradient
            right = jnp.where(inside[:, None], right, 0)
        ids = jnp.clip(ids, 0, use.vocabulary - 1).astype(jnp.float32)
        return None, None, finish(embedding_container(use, gather(ids), gather(right), joint))

    site.defvjp(forward, backward)
    return site


def tap_site(use: TapUse, finish: Finish) -> Callable[..., Array]:
    """`(value, ticket) -> value`, whose ticket receives `finish` of the value's cotangent."""
    assert use.view is not None
    view = use.view

    @jax.custom_vjp
    def site(value: Array, ticket: Any) -> Array:
        del ticket
        return value

    def forward(value: Array, ticket: Any) -> tuple[Array, None]:
        del ticket
        return value, None

    def backward(_: None, cotangent: Array) -> tuple[None, Any]:
        gradient = gather(layout.pull_back(view, cotangent))
        return None, finish(Materialised(gradient))

    site.defvjp(forward, backward)
    return site


@jax.custom_vjp
def shadow_site(value: Array, shadow: Array) -> Array:
    """The value; its cotangent goes to the shadow, one example at a time."""
    del shadow
    return value


def _shadow_forward(value: Array, shadow: Array) -> tuple[Array, Array]:
    return value, shadow


def _shadow_backward(shadow: Array, cotangent: Array) -> tuple[None, Array]:
    return None, cotangent.astype(shadow.dtype)


shadow_site.defvjp(_shadow_forward, _shadow_backward)
