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
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from fishjax.capture.adapter import (
    CALL_PRIMITIVES,
    REMAT_PRIMITIVES,
    bind,
    called_jaxpr,
    is_literal,
    remat_arguments,
    scan_parts,
    with_jaxprs,
)
from fishjax.capture.placement import names
from fishjax.types import LogProbFn

__all__ = ["example_axes", "on_auto_axes"]

_REST = "fishjax_rest"
_STATED = ("sharding", "out_sharding")


def on_auto_axes(body: Callable[..., Any], fn: LogProbFn, params: Any, *batches: Any) -> Any:
    """`body(fn, params, *batches)`, on Auto axes if the mesh in use has Explicit ones.

    Args:
      body: returns a pair of what it computed and, for every array of that, the position of its
        example axis, or None where it has none.
      fn: the user's function; `body` receives one that can be traced on Auto axes.
      params: its parameters.
      *batches: its batches; the types of the first axes say how the examples are spread.

    Returns:
      The first of the pair; example axes are sharded like those of the first batch.

    Raises:
      ValueError: this is the body of a `shard_map` that checks over which axes values vary.
    """
    _refuse_checked_shard_map(batches)
    mesh = jax.sharding.get_abstract_mesh()
    explicit = [n for n, t in zip(mesh.axis_names, mesh.axis_types, strict=True) if _explicit(t)]
    if not explicit:
        return body(fn, params, *batches)[0]
    axes = example_axes(batches)
    free = _freed(fn, params, batches, mesh, axes)
    auto = mesh.update_axis_types(dict.fromkeys(explicit, AxisType.Auto))
    with jax.sharding.use_abstract_mesh(auto):
        arguments = jax.sharding.reshard((params, batches), PartitionSpec())
        results, positions = body(free, arguments[0], *arguments[1])

    def typed(result: Any, position: int | None) -> Any:
        spec = [None] * result.ndim
        if position is not None and axes and result.shape[position] % _size(mesh, axes) == 0:
            spec[position] = axes
        return jax.sharding.reshard(result, PartitionSpec(*spec))

    leaves, treedef = jax.tree.flatten(results)
    places = jax.tree.leaves(positions, is_leaf=lambda x: x is None)
    return jax.tree.unflatten(treedef, [typed(x, at) for x, at in zip(leaves, places, strict=True)])


def _refuse_checked_shard_map(batches: Any) -> None:
    """JAX's `all_gather` over an axis of `vmap` fails where these types are checked."""
    if any(jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(batches)):
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


def _explicit(axis_type: Any) -> bool:
    return axis_type == AxisType.Explicit


def _spec(value: Any) -> Any:
    return jax.typeof(value).sharding.spec


def _padded(value: Any) -> tuple[Any, ...]:
    spec = tuple(_spec(value))
    return (*spec, *[None] * (jax.numpy.ndim(value) - len(spec)))


def _size(mesh: Any, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[a] for a in axes)


def _freed(fn: LogProbFn, params: Any, batches: Any, mesh: Any, axes: tuple[str, ...]) -> Any:
    """`fn`, for tracing on Auto axes: any batch may be short of the mesh's size."""
    sizes = [1 if n in axes else size for n, size in mesh.shape.items()]
    single = AbstractMesh(
        (*sizes, _size(mesh, axes)),
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
        values = _Evaluator(single).run(closed.jaxpr, closed.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(out), values)

    return free


class _Evaluator:
    """Evaluates a program traced on Explicit axes, on Auto axes."""

    def __init__(self, traced_on: Any):
        self.traced_on = traced_on

    def run(self, jaxpr: Any, consts: Any, inputs: Any) -> list[Any]:
        """The outputs of a jaxpr."""
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update(zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if is_literal(atom) else env[atom]

        for eqn in jaxpr.eqns:
            outs = self.equation(eqn, [read(a) for a in eqn.invars])
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def function(self, jaxpr: Any, consts: Any = ()) -> Callable[..., list[Any]]:
        """A jaxpr as a function of its inputs."""
        return lambda *inputs: self.run(jaxpr, consts, inputs)

    def equation(self, eqn: Any, values: list[Any]) -> list[Any]:
        """The outputs of one equation."""
        name = eqn.primitive.name
        if name in CALL_PRIMITIVES:
            inner, consts = called_jaxpr(eqn)
            return self.run(inner, consts, values)
        if name in REMAT_PRIMITIVES:
            block = self.function(*called_jaxpr(eqn))
            return jax.checkpoint(block, **remat_arguments(eqn))(*values)
        if name == "scan":
            return self.scan(eqn, values)
        if name == "custom_jvp_call":
            return self.custom_jvp(eqn)(*values)
        if name == "custom_vjp_call":
            return self.custom_vjp(eqn)(*values)
        if name == "mesh_cast":
            return values
        if name == "reshard":
            return [_stated(values[0], eqn.outvars[0].aval)]
        stated = [k for k in _STATED if eqn.params.get(k) is not None]
        if not stated or name == "sharding_constraint":
            return bind(with_jaxprs(eqn, self.function), *values)
        outs = bind(eqn.replace(params={**eqn.params, **dict.fromkeys(stated)}), *values)
        return [_stated(o, v.aval) for o, v in zip(outs, eqn.outvars, strict=True)]

    def scan(self, eqn: Any, values: list[Any]) -> list[Any]:
        """Rebuilds a scan."""
        parts = scan_parts(eqn)
        nc, nk = parts.num_consts, parts.num_carry
        body = self.function(parts.body.jaxpr, parts.body.consts)

        def step(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            outs = body(*values[:nc], *carry, *slices)
            return outs[:nk], outs[nk:]

        carry, ys = jax.lax.scan(
            step,
            values[nc : nc + nk],
            values[nc + nk :],
            length=parts.length,
            reverse=parts.reverse,
            unroll=parts.unroll,
        )
        return [*carry, *ys]

    def retraced(self, function: Any, like: Any, values: Any) -> tuple[Any, Any]:
        """`function(*values)`, traced on Explicit axes on types `like`; and the output's types."""
        with jax.sharding.use_abstract_mesh(self.traced_on):
            closed, out = jax.make_jaxpr(function, return_shape=True)(*like)
        outs = self.run(closed.jaxpr, closed.consts, jax.tree.leaves(values))
        treedef = jax.tree.structure(out)
        types = [_typed(v.aval) for v in closed.jaxpr.outvars]
        return jax.tree.unflatten(treedef, outs), jax.tree.unflatten(treedef, types)

    def custom_jvp(self, eqn: Any) -> Callable[..., list[Any]]:
        """A `custom_jvp` function with its rule."""
        types = [_typed(v.aval) for v in eqn.invars]
        floating = [i for i, t in enumerate(types) if jnp.issubdtype(t.dtype, jnp.inexact)]

        def derivative(primals: Any, tangents: Any) -> Any:
            moving = [primals[i] for i in floating]
            return jax.jvp(_of(eqn, primals, floating), moving, tangents)

        def rule(primals: Any, tangents: Any) -> Any:
            moving = [tangents[i] for i in floating]
            like = types, [types[i] for i in floating]
            return self.retraced(derivative, like, (list(primals), moving))[0]

        function = jax.custom_jvp(self.function(*called_jaxpr(eqn)))
        function.defjvp(rule)
        return function

    def custom_vjp(self, eqn: Any) -> Callable[..., list[Any]]:
        """A `custom_vjp` function with its rule."""
        types = [_typed(v.aval) for v in eqn.invars]
        floating = [i for i, t in enumerate(types) if jnp.issubdtype(t.dtype, jnp.inexact)]
        pull_types = []

        def traced(primals: Any) -> Any:
            return jax.vjp(_of(eqn, primals, floating), *(primals[i] for i in floating))

        def forward(*primals: Any) -> Any:
            (outs, pull), (_, pull_type) = self.retraced(traced, (types,), (list(primals),))
            pull_types.append(pull_type)
            return outs, pull

        def backward(pull: Any, cotangents: Any) -> Any:
            like = pull_types[-1], [_typed(v.aval) for v in eqn.outvars]
            backs, _ = self.retraced(lambda f, c: f(c), like, (pull, cotangents))
            found = dict(zip(floating, backs, strict=True))
            return tuple(found.get(i) for i in range(len(types)))

        function = jax.custom_vjp(self.function(*called_jaxpr(eqn)))
        function.defvjp(forward, backward)
        return function


def _typed(aval: Any) -> Any:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=aval.sharding)


def _of(eqn: Any, values: Any, moving: list[int]) -> Callable[..., list[Any]]:
    """An equation as a function of some of its inputs."""

    def function(*moved: Any) -> list[Any]:
        full = list(values)
        for i, value in zip(moving, moved, strict=True):
            full[i] = value
        return bind(eqn, *full)

    return function


def _stated(value: Any, aval: Any) -> Any:
    """A sharding the function stated on Explicit axes, as a constraint on Auto axes.

    Inside the function's own `auto_axes` a type without names says nothing.
    """
    sharding, spec = aval.sharding, list(aval.sharding.spec)
    if not all(_explicit(t) for t in sharding.mesh.axis_types):
        spec = [PartitionSpec.UNCONSTRAINED if entry is None else entry for entry in spec]
        if all(entry is PartitionSpec.UNCONSTRAINED for entry in spec):
            return value
    return jax.lax.with_sharding_constraint(value, PartitionSpec(*spec))
