"""Functions written for meshes with Explicit axes, where an array's type states its sharding.

There every operation checks shardings, and a user's function may state them (`out_sharding=`,
`reshard`). The engine's own arithmetic is not written for that; it runs on Auto axes, as
`jax.sharding.auto_axes` would run it. The user's function has to be traced on Explicit axes
all the same, and on one example, which cannot be sharded. So it is traced on an abstract mesh
on which the mesh axes of the examples have length one: every type is then spelled as in the
user's own call. The traced program is evaluated without shardings in its types; where the
function stated one, it stays as a constraint.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import core
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from fishjax.capture.placement import names
from fishjax.capture.untyped import Evaluator

__all__ = ["axis_from_end", "axis_from_start", "example_axes", "on_auto_axes"]

_REST = "fishjax_rest"


def on_auto_axes(
    run: Callable[..., Any],
    fn: Callable[..., Any],
    places: Callable[[Any, Any], Any] | None,
    *,
    extra: Any = None,
    num_batches: int = 1,
) -> Callable[..., Any]:
    """`(params, *args) -> run(fn, extra, params, *args)`, on Auto axes in place of Explicit ones.

    Args:
      run: receives `fn` as a function that can be traced on Auto axes.
      fn: the user's function.
      places: `(results, specs of params) -> tree` like the results, of the position of the example
        axis, of a PartitionSpec, or of None for an array that is to be whole everywhere. None:
        the results hold no arrays.
      extra: further arrays, of an operator.
      num_batches: how many of `args` are batches; the types of their first axes say how the
        examples are spread, and how the example axes of the results will be.

    Raises:
      ValueError: called in the body of a `shard_map` that checks over which axes values vary.
    """

    def mapped(params: Any, *args: Any) -> Any:
        batches = args[:num_batches]
        _refuse_checked_shard_map(batches)
        mesh = jax.sharding.get_abstract_mesh()
        explicit = [n for n, t in zip(mesh.axis_names, mesh.axis_types, strict=True) if _is(t)]
        abstract = (isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves((params, args)))
        if not explicit or any(abstract):
            return run(fn, extra, params, *args)
        axes = example_axes(batches)
        free = _freed(fn, params, batches, mesh, axes)
        with jax.sharding.use_abstract_mesh(_auto(mesh, explicit)):
            arguments = jax.sharding.reshard((extra, params, args), PartitionSpec())
            results = run(free, *arguments[:2], *arguments[2])
        if places is None:
            return results
        specs = jax.tree.map(_spec, params)
        return _resharded(results, places(results, specs), axes, mesh)

    return mapped


def _auto(mesh: Any, explicit: list[str]) -> Any:
    return mesh.update_axis_types(dict.fromkeys(explicit, AxisType.Auto))


def _resharded(results: Any, places: Any, axes: tuple[str, ...], mesh: Any) -> Any:
    def typed(result: Any, place: Any) -> Any:
        if isinstance(place, PartitionSpec):
            return jax.sharding.reshard(result, place)
        spec: list[Any] = [None] * result.ndim
        if place is not None and axes and result.shape[place] % _size(mesh, axes) == 0:
            spec[place] = axes
        return jax.sharding.reshard(result, PartitionSpec(*spec))

    leaves, treedef = jax.tree.flatten(results)
    flat = jax.tree.leaves(places, is_leaf=lambda x: x is None or isinstance(x, PartitionSpec))
    return jax.tree.unflatten(treedef, [typed(x, at) for x, at in zip(leaves, flat, strict=True)])


def axis_from_start(tree: Any, axis: int | None) -> Any:
    """The same axis for every array of a tree."""
    return jax.tree.map(lambda _: axis, tree)


def axis_from_end(tree: Any, axis: int) -> Any:
    """The axis counted from the end, behind any layer axes."""
    return jax.tree.map(lambda x: x.ndim - axis, tree)


def _refuse_checked_shard_map(batches: Any) -> None:
    """JAX's `all_gather` over an axis of `vmap` fails where these types are checked."""
    leaves = [leaf for leaf in jax.tree.leaves(batches) if isinstance(leaf, core.Tracer)]
    if any(jax.typeof(leaf).manual_axis_type.varying for leaf in leaves):
        raise ValueError(
            "per-example gradients inside jax.shard_map need its check_vma=False: JAX cannot "
            "gather over the axis of a vmap where it checks over which axes values vary"
        )


def example_axes(batches: Any) -> tuple[str, ...]:
    """The mesh axes over which the first axis of the batch is spread.

    Raises:
      ValueError: two arrays of the batch are spread differently.
    """
    found = {names(_spec(leaf)[0]) for leaf in jax.tree.leaves(batches) if len(_spec(leaf))} - {()}
    if len(found) > 1:
        raise ValueError(
            f"arrays of the batch spread their examples over different mesh axes, {sorted(found)}: "
            "reshard them to the same"
        )
    return found.pop() if found else ()


def _is(axis_type: Any) -> bool:
    return axis_type == AxisType.Explicit


def _spec(value: Any) -> Any:
    return jax.typeof(value).sharding.spec


def _padded(value: Any) -> tuple[Any, ...]:
    spec = tuple(_spec(value))
    return (*spec, *[None] * (jax.numpy.ndim(value) - len(spec)))


def _size(mesh: Any, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[a] for a in axes)


def _freed(fn: Any, params: Any, batches: Any, mesh: Any, axes: tuple[str, ...]) -> Any:
    """`fn`, for tracing on Auto axes: any batch may be short of the mesh's size."""
    short = axes or mesh.axis_names
    sizes = [1 if n in short else size for n, size in mesh.shape.items()]
    single = AbstractMesh(
        (*sizes, _size(mesh, short)),
        (*mesh.axis_names, _REST),
        axis_types=(*mesh.axis_types, AxisType.Explicit),
    )
    specs = {
        jax.tree.structure(batch): [_padded(leaf) for leaf in jax.tree.leaves(batch)]
        for batch in batches
    }
    param_specs = [_spec(leaf) for leaf in jax.tree.leaves(params)]

    def shape(value: Any, spec: Any) -> Any:
        sharding = NamedSharding(single, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    def free(params: Any, batch: Any) -> Any:
        leaves, treedef = jax.tree.flatten((params, batch))
        rows = zip(jax.tree.leaves(batch), specs[jax.tree.structure(batch)], strict=True)
        row_specs = [(axes or None, *spec[len(spec) - x.ndim + 1 :]) for x, spec in rows]
        shapes = [shape(x, s) for x, s in zip(leaves, [*param_specs, *row_specs], strict=True)]
        with jax.sharding.use_abstract_mesh(single):
            args = jax.tree.unflatten(treedef, shapes)
            closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
        values = Evaluator(single).run(closed.jaxpr, closed.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(out), values)

    return free
