"""Evaluates on Auto axes a program that was traced on Explicit ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fishjax.capture.adapter import (
    CALL_PRIMITIVES,
    REMAT_PRIMITIVES,
    bind,
    called_jaxpr,
    evaluate,
    remat_arguments,
    scan_parts,
    with_jaxprs,
)

__all__ = ["Evaluator"]

_STATED = ("sharding", "out_sharding")


class Evaluator:
    """Operations are applied without shardings in their types; stated ones become constraints.

    Attributes:
      traced_on: the abstract mesh with Explicit axes.
    """

    def __init__(self, traced_on: Any):
        self.traced_on = traced_on

    def run(self, jaxpr: Any, consts: Any, inputs: Any) -> list[Any]:
        """The outputs of a jaxpr."""
        return evaluate(jaxpr, consts, inputs, self.equation)

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
    if not all(t == AxisType.Explicit for t in sharding.mesh.axis_types):
        spec = [PartitionSpec.UNCONSTRAINED if entry is None else entry for entry in spec]
        if all(entry is PartitionSpec.UNCONSTRAINED for entry in spec):
            return value
    return jax.lax.with_sharding_constraint(value, PartitionSpec(*spec))
