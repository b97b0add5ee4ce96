"""Runs a program once forward and once backward, and finishes every leaf's statistic."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture.execute import Runner, Value
from fishjax.capture.factored import (
    Embedding,
    Gradient,
    Materialised,
    Outer,
    accumulator,
    summed,
)
from fishjax.capture.sites import OUTPUTS, Ride, Sites, gather
from fishjax.capture.trace import Trace, abstract_gradient
from fishjax.types import Batch

__all__ = ["collect"]

SiteStatistic = Callable[[Gradient, Any], Any]
ArgumentOf = Callable[[str, int], Any]


def collect(
    program: Trace,
    statistic: SiteStatistic,
    *,
    chunk: int | None = None,
    argument_of: ArgumentOf | None = None,
) -> tuple[Any, dict[str, Any]]:
    """What every function of gradients is made of.

    Args:
      program: the traced function, with its parameters and batch.
      statistic: `(gradient, argument) -> pytree`; called once per layer of a scanned leaf. For K
        outputs the gradient holds N * K rows, the outputs of an example together.
      chunk: how many of the K outputs are pulled back at a time; statistics of chunks are stacked
        in front. None: all together, without that axis.
      argument_of: `(path, layers) -> pytree` handed to the statistic; its arrays must begin with
        the leaf's `layers` leading axes.

    Returns:
      `(values or (values, aux), {path: statistic})`.
    """
    vector = program.num_outputs is not None
    axes = (*program.axes, OUTPUTS) if vector else program.axes
    arguments = {
        i: argument_of(program.paths[i], program.forms[i].layers) if argument_of else None
        for i in program.reported
    }
    outputs_at_once = (chunk or program.num_outputs or 1) if vector else 1
    tickets, joint = _tickets(program, statistic, arguments, outputs_at_once)
    runner = Runner(program.forms, Sites(statistic, axes, program.axes), joint)
    shadows = {
        i: jnp.zeros(jnp.shape(program.leaves[i]), accumulator(program.leaves[i].dtype))
        for i in program.reported
        if program.forms[i].kind == "accumulate"
    }

    def per_example(example: Batch) -> tuple[Any, Any, Any]:
        def forward(tickets: Any, shadows: Any) -> tuple[Array, Any]:
            values = [Value(p, shadows.get(i)) for i, p in enumerate(program.leaves)]
            values += [Value(x) for x in jax.tree.leaves(example)]
            rides = {
                index: Ride(ticket, _riding(program, arguments, index))
                for index, ticket in tickets.items()
            }
            value, *aux = runner.run(program.analysis.plan, values, rides)
            return value.primal, jax.tree.unflatten(program.aux_tree, [a.primal for a in aux])

        def pull_back(cotangent: Array) -> tuple[Any, Any]:
            collected, shadow = pull(cotangent)
            return collected, {i: gather(s, axes) for i, s in shadow.items()}

        output, pull, aux = jax.vjp(forward, tickets, shadows, has_aux=True)

        def finished(cotangents: Array) -> dict[str, Any]:
            run = pull_back
            if vector:
                run = jax.vmap(pull_back, axis_name=OUTPUTS, out_axes=None)
            collected, shadow = run(cotangents)
            return {
                program.paths[i]: _conclude(
                    program, i, statistic, arguments[i], collected, shadow, outputs_at_once
                )
                for i in program.reported
            }

        if not vector:
            return output, aux, finished(jnp.ones_like(output))
        cotangents = jnp.eye(output.shape[0], dtype=output.dtype)
        if chunk is None:
            return output, aux, finished(cotangents)
        rows = -(-output.shape[0] // chunk) * chunk - output.shape[0]
        padded = jnp.pad(cotangents, ((0, rows), (0, 0))).reshape(-1, chunk, output.shape[0])
        return output, aux, jax.lax.map(finished, padded)

    output, aux, results = program.over_examples(per_example)
    return ((output, aux) if program.has_aux else output), results


def _riding(program: Trace, arguments: dict[int, Any], index: int) -> Any:
    """The argument that travels to a use in local form, once per step of its scans."""
    use = program.analysis.uses[index]
    (leaf,) = use.leaves
    return arguments[leaf] if program.forms[leaf].kind in ("local", "joint") else None


def _tickets(
    program: Trace, statistic: SiteStatistic, arguments: dict[int, Any], outputs: int
) -> tuple[dict[int, Any], dict[int, Any]]:
    """Zero arrays shaped like what uses hand out of the program, and shapes for `Runner.tickets`.

    Of a joint form only the first use has one: the statistic comes out there.
    """
    tickets, joint = {}, {}
    for leaf in program.reported:
        form = program.forms[leaf]
        if form.kind not in ("local", "joint", "factors"):
            continue
        gradients = {
            u: abstract_gradient(u, program.num_examples, form.shares_factors, outputs)
            for u in form.uses
        }
        if form.kind == "joint":
            joint |= {use.index: gradient for use, gradient in gradients.items()}
            whole = jax.eval_shape(lambda *g, f=form: summed(g, f.disjoint), *gradients.values())
            gradients = {form.uses[0]: whole}
        for use, gradient in gradients.items():
            shape = gradient
            if form.kind != "factors":
                one = jax.tree.map(
                    lambda x, layers=form.layers: jax.ShapeDtypeStruct(x.shape[layers:], x.dtype),
                    arguments[leaf],
                )
                shape = jax.eval_shape(statistic, gradient, one)
            lengths = tuple(n for _, n in use.scopes)
            tickets[use.index] = jax.tree.map(
                lambda s, lengths=lengths: jnp.zeros((*lengths, *s.shape), _floating(s.dtype)),
                shape,
            )
    return tickets, joint


def _floating(dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"a statistic returned dtype {dtype}: expected floating arrays")
    return dtype


def _conclude(
    program: Trace,
    leaf: int,
    statistic: SiteStatistic,
    argument: Any,
    collected: Any,
    shadows: Any,
    outputs: int,
) -> Any:
    """The statistic of one leaf from whatever its form collected."""
    form, value = program.forms[leaf], program.leaves[leaf]
    if form.kind in ("local", "joint"):
        return collected[form.uses[0].index]
    if form.kind == "unused":
        rows = program.num_examples * outputs
        zero = Materialised(
            jax.ShapeDtypeStruct((rows, *jnp.shape(value)), accumulator(value.dtype))  # type: ignore[arg-type]
        )
        shape = jax.eval_shape(statistic, zero, argument)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
    if form.kind == "accumulate":
        parts: Any = (Materialised(jnp.moveaxis(shadows[leaf], 0, form.layers)),)
    else:
        parts = tuple(_merge_steps(collected[u.index], u) for u in form.uses)

    def function(argument: Any, *parts: Any) -> Any:
        return statistic(summed(parts, form.disjoint), argument)

    for _ in range(form.layers):
        function = jax.vmap(function)
    return function(argument, *parts)


def _merge_steps(part: Any, use: Any) -> Any:
    """Moves the steps of scans over a shared weight into the row axis; layer axes stay first."""
    sorts = [sort for sort, _ in use.scopes]
    steps = [i for i, sort in enumerate(sorts) if sort == "steps"]
    if not steps:
        return part
    layers = len(sorts) - len(steps)
    row_axis = layers + (1 if isinstance(part, Embedding) else 2)

    def merge(x: Array) -> Array:
        x = jnp.moveaxis(x, steps, range(row_axis, row_axis + len(steps))) if steps else x
        rows = math.prod(x.shape[row_axis : row_axis + len(steps) + 1])
        return x.reshape(*x.shape[:row_axis], rows, *x.shape[row_axis + len(steps) + 1 :])

    assert isinstance(part, Outer | Embedding)
    return jax.tree.map(merge, part)
