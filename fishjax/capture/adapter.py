"""Every access to JAX's jaxpr internals, so that a new JAX release changes one file.

Between JAX 0.10 and 0.12 the parameters of `scan` changed (counts of constants and carries
became flat trees) and primitives were renamed; the rest of `capture` sees the names below.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex_core

__all__ = [
    "CALL_PRIMITIVES",
    "REMAT_PRIMITIVES",
    "ScanParts",
    "bind",
    "branches",
    "called_jaxpr",
    "evaluate",
    "is_literal",
    "remat_arguments",
    "scan_parts",
    "with_jaxprs",
]

CALL_PRIMITIVES = frozenset({"jit", "pjit", "closed_call", "core_call"})
REMAT_PRIMITIVES = frozenset({"remat2", "remat", "checkpoint"})


class ScanParts(NamedTuple):
    """What a `scan` equation states: its body, and how many inputs of each sort it has."""

    body: Any
    num_consts: int
    num_carry: int
    length: int
    reverse: bool
    unroll: Any


def is_literal(atom: Any) -> bool:
    """Whether an equation's input is a literal constant."""
    return isinstance(atom, jex_core.Literal)


def bind(eqn: Any, *values: Any) -> list[Any]:
    """Evaluates one equation on values; always returns a list."""
    params = eqn.primitive.get_bind_params(eqn.params)
    if isinstance(params, tuple):
        functions, params = params
        values = (*functions, *values)
    out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def branches(eqn: Any) -> list[tuple[Any, list[Any]]]:
    """The (open jaxpr, constants) of every branch of a `cond`."""
    return [(branch.jaxpr, list(branch.consts)) for branch in eqn.params["branches"]]


def called_jaxpr(eqn: Any) -> tuple[Any, list[Any]]:
    """The (open jaxpr, constants) that a call or remat equation runs."""
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if isinstance(inner, jex_core.ClosedJaxpr):
        return inner.jaxpr, list(inner.consts)
    return inner, []


def evaluate(
    jaxpr: Any, consts: Any, inputs: Any, equation: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """The outputs of a jaxpr, each equation evaluated by `equation(eqn, values)`."""
    env: dict[Any, Any] = dict(zip(jaxpr.invars, inputs, strict=True))
    env.update(zip(jaxpr.constvars, consts, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if is_literal(atom) else env[atom]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, equation(eqn, [read(a) for a in eqn.invars]), strict=True))
    return [read(a) for a in jaxpr.outvars]


def remat_arguments(eqn: Any) -> dict[str, Any]:
    """The `jax.checkpoint` keywords that rebuild a remat equation."""
    return {"prevent_cse": eqn.params["prevent_cse"], "policy": eqn.params["policy"]}


def scan_parts(eqn: Any) -> ScanParts:
    """Reads a `scan` equation of any supported JAX version."""
    params = eqn.params
    if "num_consts" in params:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    else:
        consts, carry, _ = params["ft_in"].unpack()
        num_consts, num_carry = len(list(consts)), len(list(carry))
    return ScanParts(
        params["jaxpr"],
        num_consts,
        num_carry,
        params["length"],
        params["reverse"],
        params["unroll"],
    )


Rebuild = Callable[..., Callable[..., list[Any]]]  # (jaxpr, consts) -> function of its inputs


def with_jaxprs(eqn: Any, rebuild: Rebuild) -> Any:
    """The equation with every closed jaxpr among its parameters (branches, loops) rebuilt."""

    def renewed(value: Any) -> Any:
        if isinstance(value, tuple) and any(isinstance(v, jex_core.ClosedJaxpr) for v in value):
            return tuple(renewed(v) for v in value)
        if not isinstance(value, jex_core.ClosedJaxpr):
            return value
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in value.in_avals]
        return jax.make_jaxpr(rebuild(value.jaxpr, value.consts))(*shapes)

    return eqn.replace(params={k: renewed(v) for k, v in eqn.params.items()})
