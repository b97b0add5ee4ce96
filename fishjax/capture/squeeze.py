"""Rewrites a program so that its values have no axes of length one.

The single-example program is the user's function on a batch of one, so every value has an
example axis of length one, in front of or merged with its own axes. Under `vmap` they become
`[N, 1, ...]`, and XLA's CPU kernels reduce and copy such arrays up to ten times slower than
`[N, ...]`. Dropping an axis of length one is only a reshape, whatever the axis means, so the
rewrite is exact; an equation without a rule here runs on the original shapes.
"""

from collections.abc import Callable
from typing import Any

import jax

from fishjax.capture.adapter import (
    CALL_PRIMITIVES,
    REMAT_PRIMITIVES,
    bind,
    called_jaxpr,
    evaluate,
    remat_arguments,
    scan_parts,
)
from fishjax.capture.placement import constraint_without_unit_axes, example_mesh_axes

__all__ = ["squeezed_program"]

_ELEMENTWISE = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "and",
        "atan2",
        "cbrt",
        "ceil",
        "clamp",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "div",
        "eq",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "or",
        "pow",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
    ]
)
_REDUCTIONS = frozenset(
    ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"]
)


def squeezed_program(jaxpr: Any, consts: list[Any]) -> Callable[..., list[Any]]:
    """A function of the jaxpr's inputs, in their original shapes, with the same outputs."""
    taken = example_mesh_axes(jaxpr)

    def run(*inputs: Any) -> list[Any]:
        outs = _run(jaxpr, consts, list(inputs), taken)
        return [_shaped(o, v.aval.shape) for o, v in zip(outs, jaxpr.outvars, strict=True)]

    return run


def _drop(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(s for s in shape if s != 1)


def _shaped(value: Any, shape: tuple[int, ...]) -> Any:
    return value if jax.numpy.shape(value) == tuple(shape) else value.reshape(shape)


def _run(jaxpr: Any, consts: list[Any], inputs: list[Any], taken: tuple[str, ...]) -> list[Any]:
    """Evaluates a jaxpr; every value is held either as stated or squeezed.

    `taken` are the mesh axes over which the examples are spread.
    """
    return evaluate(jaxpr, consts, inputs, lambda eqn, values: _equation(eqn, values, taken))


def _equation(eqn: Any, values: list[Any], taken: tuple[str, ...]) -> list[Any]:
    name = eqn.primitive.name
    if name in CALL_PRIMITIVES:
        inner, consts = called_jaxpr(eqn)
        return _run(inner, consts, values, taken)
    if name in REMAT_PRIMITIVES:
        return _remat(eqn, values, taken)
    if name == "scan":
        return _scan(eqn, values, taken)
    if name == "sharding_constraint":
        return _constraint(eqn, values, taken)
    rule = _elementwise if name in _ELEMENTWISE else _RULES.get(name)
    out = None if rule is None else rule(eqn, values)
    if out is not None:
        return [out]
    full = [_shaped(v, a.aval.shape) for v, a in zip(values, eqn.invars, strict=True)]
    return bind(eqn, *full)


def _remat(eqn: Any, values: list[Any], taken: tuple[str, ...]) -> list[Any]:
    inner, consts = called_jaxpr(eqn)

    def block(*values: Any) -> list[Any]:
        return _run(inner, consts, list(values), taken)

    return jax.checkpoint(block, **remat_arguments(eqn))(*values)


def _constraint(eqn: Any, values: list[Any], taken: tuple[str, ...]) -> list[Any]:
    params = constraint_without_unit_axes(eqn, taken)
    value = _shaped(values[0], _drop(eqn.invars[0].aval.shape))
    return [value if params is None else eqn.primitive.bind(value, **params)]


def _scan(eqn: Any, values: list[Any], taken: tuple[str, ...]) -> list[Any]:
    parts = scan_parts(eqn)
    nc, nk = parts.num_consts, parts.num_carry
    body = parts.body.jaxpr
    carry_shapes = [v.aval.shape for v in body.invars[nc : nc + nk]]
    xs = [
        _shaped(v, a.aval.shape)
        for v, a in zip(values[nc + nk :], eqn.invars[nc + nk :], strict=True)
    ]

    def step(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        outs = _run(body, list(parts.body.consts), [*values[:nc], *carry, *slices], taken)
        after = [_shaped(o, _drop(s)) for o, s in zip(outs[:nk], carry_shapes, strict=True)]
        shapes = [v.aval.shape for v in body.outvars[nk:]]
        return after, [_shaped(o, s) for o, s in zip(outs[nk:], shapes, strict=True)]

    init = [_shaped(v, _drop(s)) for v, s in zip(values[nc : nc + nk], carry_shapes, strict=True)]
    carry, ys = jax.lax.scan(
        step, init, xs, length=parts.length, reverse=parts.reverse, unroll=parts.unroll
    )
    return [*carry, *ys]


def _elementwise(eqn: Any, values: list[Any]) -> Any:
    """Operands may be scalars, or of length one where the output is longer."""
    out = eqn.outvars[0].aval.shape
    shapes = [a.aval.shape for a in eqn.invars]
    if any(shape and len(shape) != len(out) for shape in shapes):
        return None
    operands = [_expanded(v, s, out) for v, s in zip(values, shapes, strict=True)]
    return bind(eqn, *operands)[0]


def _expanded(value: Any, shape: tuple[int, ...], out: tuple[int, ...]) -> Any:
    value = _shaped(value, _drop(shape))
    if not shape or _drop(shape) == _drop(out):
        return value
    kept = _kept(out)
    axes = tuple(kept[a] for a, s in enumerate(shape) if s != 1)
    return jax.lax.broadcast_in_dim(value, _drop(out), axes)


def _kept(shape: tuple[int, ...]) -> dict[int, int]:
    """Old axis to new axis, for axes longer than one."""
    axes = [a for a, s in enumerate(shape) if s != 1]
    return {axis: i for i, axis in enumerate(axes)}


def _reduce(eqn: Any, values: list[Any]) -> Any:
    shape = eqn.invars[0].aval.shape
    kept = _kept(shape)
    axes = tuple(kept[a] for a in eqn.params["axes"] if a in kept)
    value = _shaped(values[0], _drop(shape))
    return eqn.primitive.bind(value, **{**eqn.params, "axes": axes}) if axes else value


def _reshape(eqn: Any, values: list[Any]) -> Any:
    if eqn.params.get("dimensions") is not None and eqn.primitive.name == "reshape":
        return None
    return _shaped(values[0], _drop(eqn.outvars[0].aval.shape))


def _transpose(eqn: Any, values: list[Any]) -> Any:
    shape = eqn.invars[0].aval.shape
    kept = _kept(shape)
    order = tuple(kept[p] for p in eqn.params["permutation"] if p in kept)
    value = _shaped(values[0], _drop(shape))
    return value if order == tuple(range(len(order))) else jax.lax.transpose(value, order)


def _broadcast(eqn: Any, values: list[Any]) -> Any:
    if len(eqn.invars) > 1 or eqn.params["sharding"] is not None:
        return None
    shape, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    value, kept = _shaped(values[0], _drop(shape)), _kept(out)
    axes = tuple(
        kept[d] for d, s in zip(eqn.params["broadcast_dimensions"], shape, strict=True) if s != 1
    )
    if _drop(shape) == _drop(out) and axes == tuple(range(len(axes))):
        return value
    return jax.lax.broadcast_in_dim(value, _drop(out), axes)


def _dot_general(eqn: Any, values: list[Any]) -> Any:
    if eqn.params.get("out_sharding") is not None:
        return None
    shapes = [a.aval.shape for a in eqn.invars]
    kept = [_kept(s) for s in shapes]
    numbers = tuple(
        tuple(tuple(k[a] for a in axes if a in k) for axes, k in zip(pair, kept, strict=True))
        for pair in eqn.params["dimension_numbers"]
    )
    operands = [_shaped(v, _drop(s)) for v, s in zip(values, shapes, strict=True)]
    return eqn.primitive.bind(*operands, **{**eqn.params, "dimension_numbers": numbers})


_RULES = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("reshape", "squeeze"), _reshape),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot_general,
}
