"""The custom derivatives at a use: they hand the statistic out and no weight gradient.

Each operation has one extra argument, a zero *ticket* shaped like the statistic. The backward
rule returns the input's cotangent as usual, nothing for the weight, and as the ticket's
cotangent the statistic of this use. It runs for one example under a `vmap` with a named axis
(and, for functions of several outputs, one output under a second one); `gather` makes the
explicit `[N, ...]` array, at no cost.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture import convolution, dense, layout
from fishjax.capture.adapter import bind
from fishjax.capture.dense import flatten_groups
from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer, summed
from fishjax.capture.forms import canonical_axes, product_axes
from fishjax.capture.plan import ConvolutionUse, DenseUse, EmbeddingUse, ProductUse, TapUse

__all__ = [
    "EXAMPLES",
    "MEMBERS",
    "OUTPUTS",
    "Ride",
    "Sites",
    "embedding_container",
    "gather",
    "product_container",
    "shadow_site",
]

EXAMPLES = "fishjax_examples"
MEMBERS = "fishjax_members"  # of a group whose members share some of their inputs
OUTPUTS = "fishjax_outputs"

Finish = Callable[[Gradient, Any], Any]
Gate = Array | None  # whether the example takes the branch that the use is in


class Ride(NamedTuple):
    """What travels to a use: the ticket, and the leaf's argument of the statistic."""

    ticket: Any
    argument: Any


def gather(value: Array, axes: tuple[str, ...]) -> Array:
    """`[...]` of one example (and output) to `[N, ...]` or `[N * outputs, ...]` of all."""
    for axis in reversed(axes):
        value = jax.lax.all_gather(value, axis)
    return value if len(axes) == 1 else value.reshape(-1, *value.shape[len(axes) :])


@dataclasses.dataclass(frozen=True)
class _Reshape:
    """Restores an axis structure that merging or dropping axes had lost."""

    shape: tuple[int, ...]
    then: Callable[[Array], Array] | None = None

    def __call__(self, gradient: Array) -> Array:
        gradient = gradient.reshape(-1, *self.shape)
        return gradient if self.then is None else self.then(gradient)


def product_container(use: ProductUse, left: Array, right: Array, joint: bool) -> Outer:
    """The container in the leaf's coordinates where they are known, else in the operand's.

    Several uses of one leaf are `joint`: stated alike, whichever side the data was on.
    """
    assert use.view is not None
    right = right if use.view.scale == 1.0 else right * use.view.scale
    axes = product_axes(use)
    if axes is None:
        return _in_operand_coordinates(use, left, right)
    swapped = joint and canonical_axes(axes) != axes
    if swapped:
        axes, left, right = (axes[0], axes[2], axes[1]), right, left
    order = tuple(a for group in axes for a in group)
    kept, shape = sorted(order), use.view.root_shape
    restore = _Reshape(shape) if len(kept) != len(shape) else None
    dims = tuple(shape[a] for a in order)
    permutation = tuple(order.index(a) for a in kept)
    return Outer(left, right, dims, permutation, restore, axes, data_on_left=not swapped)


def _in_operand_coordinates(use: ProductUse, left: Array, right: Array) -> Outer:
    assert use.view is not None
    restore = layout.restorer(use.view)
    if isinstance(use, ConvolutionUse):
        dims, permutation = convolution.kernel_permutation(use)
        return Outer(left, right, dims, permutation, _Reshape(use.operand_shape, restore))
    assert isinstance(use, DenseUse)
    order = (*use.blocks, *use.contracting, *use.free)
    dims = tuple(use.operand_shape[a] for a in order)
    return Outer(left, right, dims, tuple(order.index(a) for a in range(len(order))), restore)


def embedding_container(use: EmbeddingUse, ids: Array, right: Array, joint: bool) -> Embedding:
    """The container of an embedding's gradients, `[N, R]` ids and `[N, R, F]` cotangents."""
    assert use.view is not None
    right = right if use.view.scale == 1.0 else right * use.view.scale
    if joint and use.view.axes is not None:
        return Embedding(ids, right, use.view.root_shape)
    return Embedding(ids, right, use.operand_shape, layout.restorer(use.view))


@dataclasses.dataclass(frozen=True)
class Sites:
    """Builds the operation at each sort of use.

    Attributes:
      finish: statistic of a gradient and the leaf's argument.
      axes: names of the mapped axes, outermost first.
      data_axes: those of them on which data depends: all but the outputs of an example.
    """

    finish: Finish
    axes: tuple[str, ...]
    data_axes: tuple[str, ...]

    def product(self, eqn: Any, use: ProductUse, joint: bool) -> Callable[..., Array]:
        """`(data, weight, ride, gate) -> product` of a dense layer or a convolution."""
        rule: Any = convolution if isinstance(use, ConvolutionUse) else dense
        finish = _keep if joint else self.finish

        def operation(data: Array, weight: Array) -> Array:
            return bind(eqn, *((weight, data) if use.operand == 0 else (data, weight)))[0]

        @jax.custom_vjp
        def site(data: Array, weight: Array, ride: Ride, gate: Gate) -> Array:
            del ride, gate
            return operation(data, weight)

        def forward(data: Array, weight: Array, ride: Ride, gate: Gate) -> tuple[Array, Any]:
            return operation(data, weight), (data, weight, ride.argument, gate)

        def backward(saved: Any, cotangent: Array) -> tuple[Array, None, Ride, None]:
            data, weight, argument, gate = saved
            left, right = rule.factors(eqn, use, data, cotangent)
            back = rule.data_cotangent(eqn, use, data, weight, cotangent, right)
            right = _through(gate, right)
            left, right = gather(left, self.data_axes), gather(right, self.axes)
            gradient = product_container(use, left, right, joint)
            return back, None, Ride(finish(gradient, argument), None), None

        site.defvjp(forward, backward)
        return site

    def embedding(self, eqn: Any, use: EmbeddingUse, joint: bool) -> Callable[..., Array]:
        """`(indices, table, ride, gate) -> rows`."""
        numbers = eqn.params["dimension_numbers"]
        finish = _keep if joint else self.finish

        @jax.custom_vjp
        def site(indices: Array, table: Array, ride: Ride, gate: Gate) -> Array:
            del ride, gate
            return bind(eqn, table, indices)[0]

        def forward(indices: Array, table: Array, ride: Ride, gate: Gate) -> tuple[Array, Any]:
            return bind(eqn, table, indices)[0], (indices, ride.argument, gate)

        def backward(saved: Any, cotangent: Array) -> tuple[None, None, Ride, None]:
            indices, argument, gate = saved
            offsets = tuple(numbers.offset_dims)
            rows = tuple(a for a in range(cotangent.ndim) if a not in offsets)
            right = _through(gate, flatten_groups(cotangent, rows, offsets))
            ids = indices[..., use.column].reshape(-1)
            inside = (ids >= 0) & (ids < use.vocabulary)
            if not use.clip:  # rows that the gather filled have no gradient
                right = jnp.where(inside[:, None], right, 0)
            ids = jnp.clip(ids, 0, use.vocabulary - 1).astype(jnp.float32)
            ids, right = gather(ids, self.data_axes), gather(right, self.axes)
            gradient = embedding_container(use, ids, right, joint)
            return None, None, Ride(finish(gradient, argument), None), None

        site.defvjp(forward, backward)
        return site

    def tap(self, use: TapUse, joint: bool) -> Callable[..., Array]:
        """`(value, ride, gate) -> value`; the ticket receives the value's cotangent."""
        assert use.view is not None
        view, finish = use.view, _keep if joint else self.finish

        @jax.custom_vjp
        def site(value: Array, ride: Ride, gate: Gate) -> Array:
            del ride, gate
            return value

        def forward(value: Array, ride: Ride, gate: Gate) -> tuple[Array, Any]:
            return value, (ride.argument, gate)

        def backward(saved: Any, cotangent: Array) -> tuple[None, Ride, None]:
            argument, gate = saved
            cotangent = _through(gate, cotangent)
            gradient = gather(layout.pull_back(view, cotangent), self.axes)
            return None, Ride(finish(Materialised(gradient), argument), None), None

        site.defvjp(forward, backward)
        return site

    def joint(self, tickets: dict[int, Any], disjoint: bool) -> Callable[[Ride], dict[int, Any]]:
        """`ride -> tickets` of several uses, whose factors make up one gradient.

        Args:
          tickets: shapes of the uses' containers, by index.
          disjoint: as in `factored.Sum`.
        """

        def zeros() -> dict[int, Any]:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tickets)

        @jax.custom_vjp
        def site(ride: Ride) -> dict[int, Any]:
            del ride
            return zeros()

        def forward(ride: Ride) -> tuple[dict[int, Any], Any]:
            return zeros(), ride.argument

        def backward(argument: Any, parts: dict[int, Any]) -> tuple[Ride]:
            gradient = summed(tuple(parts[i] for i in sorted(parts)), disjoint)
            return (Ride(self.finish(gradient, argument), None),)

        site.defvjp(forward, backward)
        return site


def _through(gate: Gate, cotangent: Array) -> Array:
    return cotangent if gate is None else jnp.where(gate, cotangent, 0)


def _keep(gradient: Gradient, argument: Any) -> Gradient:
    """The factors themselves: the statistic of a joint form is finished at the end."""
    del argument
    return gradient


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
