"""Convolutions: a dense product of the data's patches, whatever the strides and dilations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from fishjax.capture.adapter import bind
from fishjax.capture.plan import DATA, ConvolutionUse, Use, followed

__all__ = ["convolution_use", "data_cotangent", "factors", "kernel_permutation", "leaf_axes"]


def convolution_use(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    """The use that a `conv_general_dilated` is, as a function of the use's index."""
    if not followed(ins[1]) or ins[0] != DATA or eqn.params["batch_group_count"] != 1:
        return None
    kind, params = ins[1], eqn.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    out_axis, in_axis, *spatial = numbers.rhs_spec
    shape, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    window = math.prod(shape[a] for a in spatial)
    return lambda index: ConvolutionUse(
        index,
        kind.leaves,
        kind.view,
        "convolution",
        kind.view.scopes,
        kind.layers,
        1,
        tuple(shape),
        groups,
        math.prod(out) // out[numbers.out_spec[1]],
        shape[in_axis] * window,
        shape[out_axis] // groups,
        eqn.invars[0].aval.dtype,
        eqn.outvars[0].aval.dtype,
        in_axis,
        out_axis,
        tuple(spatial),
    )


def factors(eqn: Any, use: ConvolutionUse, data: Array, cotangent: Array) -> tuple[Array, Array]:
    """`(patches [G, R, I], cotangent [G, R, J])` for G feature groups and R output positions.

    A patch's features are ordered input channel first, then the window's axes.
    """
    params = eqn.params
    numbers = params["dimension_numbers"]
    patches = lax.conv_general_dilated_patches(
        data,
        [use.operand_shape[a] for a in use.spatial_axes],
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        dimension_numbers=numbers,
        precision=lax.Precision.HIGHEST,  # only moves numbers: must not round them
    )

    def grouped(value: Array) -> Array:
        channels = numbers.out_spec[1]
        value = jnp.moveaxis(value, channels, 0)
        value = value.reshape(use.num_blocks, value.shape[0] // use.num_blocks, -1)
        return jnp.swapaxes(value, 1, 2)

    return grouped(patches), grouped(cotangent)


def data_cotangent(
    eqn: Any, use: ConvolutionUse, data: Array, weight: Array, cotangent: Array, right: Array
) -> Array:
    """The cotangent of the data."""
    del use, right
    (back,) = jax.linear_transpose(lambda x: bind(eqn, x, weight)[0], data)(cotangent)
    return back


def kernel_permutation(use: ConvolutionUse) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`(dims, permutation)`: group, input, window and output axes, and the way to the kernel's.

    The kernel's output axis is the group and output axes merged.
    """
    shape = use.operand_shape
    dims = (
        use.num_blocks,
        shape[use.in_axis],
        *(shape[a] for a in use.spatial_axes),
        shape[use.out_axis] // use.num_blocks,
    )
    source = {use.in_axis: 1, use.out_axis: len(dims) - 1}
    source.update({axis: 2 + i for i, axis in enumerate(use.spatial_axes)})
    order: list[int] = []
    for axis in range(len(shape)):
        order += [0, source[axis]] if axis == use.out_axis else [source[axis]]
    return dims, tuple(order)


def leaf_axes(use: ConvolutionUse) -> tuple[tuple[int, ...], ...] | None:
    """(block, patch, output) axes of the leaf, without those of length one; None if unknown."""
    if use.num_blocks != 1 or use.view is None or use.view.axes is None:
        return None
    named, root = use.view.axes, use.view.root_shape

    def names(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for n in (named[a] for a in axes) if n >= 0 and root[n] != 1)

    return (), names((use.in_axis, *use.spatial_axes)), names((use.out_axis,))
