"""Any statistic of any parameter's per-example gradient, from one backward pass."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture.analysis import Analysis, analyse
from fishjax.capture.execute import Runner, Value
from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer, Sum, accumulator
from fishjax.capture.forms import Form, choose_forms
from fishjax.capture.placement import example_mesh_axes
from fishjax.capture.plan import DenseUse, EmbeddingUse, TapUse
from fishjax.capture.sites import AXIS, dense_container, embedding_container
from fishjax.capture.squeeze import squeezed_program
from fishjax.trees import flatten_with_paths, leading_size, take_example
from fishjax.types import Batch, LogProbFn, Params

__all__ = ["Statistic", "Trace", "abstract_gradient", "sitewise", "trace"]

Statistic = Callable[[Gradient], Any]


class Trace:
    """A program with its analysis: what both the report and the engine start from."""

    def __init__(self, fn: LogProbFn, params: Params, batch: Batch):
        self.paths, leaves, self.treedef = flatten_with_paths(params)
        self.leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
        self.num_examples = leading_size(batch)
        example = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), batch
        )

        def single(*inputs: Any) -> Array:
            tree = jax.tree.unflatten(self.treedef, inputs[: len(self.leaves)])
            return _scalar(fn(tree, take_example(inputs[-1])))

        original = jax.make_jaxpr(single)(*self.leaves, example)
        self.example_axes = example_mesh_axes(original.jaxpr)
        inputs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in original.jaxpr.invars]
        closed = jax.make_jaxpr(squeezed_program(original.jaxpr, list(original.consts)))(*inputs)
        num_example_leaves = len(jax.tree.leaves(example))
        owners = [*range(len(self.leaves)), *[None] * num_example_leaves]
        self.analysis: Analysis = analyse(closed.jaxpr, list(closed.consts), owners)
        shapes = [tuple(jnp.shape(leaf)) for leaf in self.leaves]
        self.forms: list[Form] = choose_forms(self.analysis.uses, shapes)


def _scalar(outputs: Any) -> Array:
    shape = jnp.shape(outputs)
    if shape != (1,):
        raise ValueError(
            f"fn returned shape {shape} for a batch of one example: expected (1,), one number "
            "per example; sum or select inside fn"
        )
    return outputs[0]


def trace(fn: LogProbFn, params: Params, batch: Batch) -> Trace:
    """Traces and analyses `fn` on one example of `batch`."""
    return Trace(fn, params, batch)


def sitewise(
    fn: LogProbFn, statistic: Statistic
) -> Callable[[Params, Batch], tuple[Array, dict[str, Any]]]:
    """Computes a statistic of every parameter's per-example gradients, in one backward pass.

    `statistic` receives each parameter's gradients in factored form (`Outer`, `Embedding`,
    `Materialised` or, for a parameter used several times, `Sum`) with the example axis first,
    and returns a pytree of floating arrays: per example, across examples or summed. For a
    parameter that a `scan` slices into layers it is called once per layer.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      statistic: function of a factored gradient.

    Returns:
      `(params, batch) -> (outputs [N], {path: statistic})`; statistics of scanned layers have
      the layer axis first.

    Raises:
      ValueError: `fn` does not return one number per example, or the batch has no common size.

    Example:
      The summed gradient, without a weight-gradient of the usual kind:

      >>> import jax.numpy as jnp
      >>> from fishjax import capture
      >>> fn = lambda w, x: (x @ w).sum(axis=-1)
      >>> run = capture.sitewise(fn, lambda gradient: gradient.materialise().sum(axis=0))
      >>> outputs, sums = run(jnp.ones((2, 3)), jnp.ones((4, 2)))
      >>> sums[""].shape
      (2, 3)
    """

    def run(params: Params, batch: Batch) -> tuple[Array, dict[str, Any]]:
        program = trace(fn, params, batch)
        outputs, collected, shadows = _execute(program, statistic, batch)
        results = {}
        for leaf, path in enumerate(program.paths):
            if not jnp.issubdtype(jnp.result_type(program.leaves[leaf]), jnp.floating):
                continue
            results[path] = _conclude(program, leaf, statistic, collected, shadows)
        return outputs, results

    return run


def _execute(program: Trace, statistic: Statistic, batch: Batch) -> tuple[Array, Any, Any]:
    runner = Runner(program.forms, statistic)
    tickets = _tickets(program, statistic)
    shadows = {
        leaf: jnp.zeros(jnp.shape(program.leaves[leaf]), accumulator(program.leaves[leaf].dtype))
        for leaf, form in enumerate(program.forms)
        if form.kind == "accumulate"
    }

    def per_example(example: Batch) -> tuple[Array, Any, Any]:
        def forward(tickets: Any, shadows: Any) -> Array:
            values = [Value(p, shadows.get(i)) for i, p in enumerate(program.leaves)]
            values += [Value(x) for x in jax.tree.leaves(example)]
            return runner.run(program.analysis.plan, values, tickets)[0].primal

        output, pull = jax.vjp(forward, tickets, shadows)
        return output, *pull(jnp.ones_like(output))

    spread = program.example_axes or None
    mapped = jax.vmap(per_example, out_axes=(0, None, 0), axis_name=AXIS, spmd_axis_name=spread)
    return mapped(batch)


def _tickets(program: Trace, statistic: Statistic) -> dict[int, Any]:
    """Zero arrays shaped like what every use will hand out."""
    tickets = {}
    for form in program.forms:
        if form.kind not in ("local", "factors"):
            continue
        for use in form.uses:
            shape = jax.eval_shape(
                statistic if form.kind == "local" else lambda g: g,
                abstract_gradient(use, program.num_examples, form.kind == "factors"),
            )
            lengths = tuple(n for _, n in use.scopes)
            tickets[use.index] = jax.tree.map(
                lambda s, lengths=lengths: jnp.zeros((*lengths, *s.shape), _floating(s.dtype)),
                shape,
            )
    return tickets


def _floating(dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"a statistic returned dtype {dtype}: expected floating arrays")
    return dtype


def abstract_gradient(use: Any, n: int, joint: bool) -> Any:
    """The container a use produces, as shapes."""
    spec = jax.ShapeDtypeStruct
    if isinstance(use, TapUse):
        assert use.view is not None
        return Materialised(spec((n, *use.view.root_shape), accumulator(use.dtype)))
    if isinstance(use, EmbeddingUse):
        ids = spec((n, use.rows), jnp.float32)
        right = spec((n, use.rows, use.features), use.dtype)
        return jax.eval_shape(lambda i, r: embedding_container(use, i, r, joint), ids, right)
    assert isinstance(use, DenseUse)
    left = spec((n, use.num_blocks, use.rows, use.left_size), use.data_dtype)
    right = spec((n, use.num_blocks, use.rows, use.right_size), use.dtype)
    return jax.eval_shape(lambda a, b: dense_container(use, a, b, joint), left, right)


def _conclude(program: Trace, leaf: int, statistic: Statistic, collected: Any, shadows: Any) -> Any:
    """The statistic of one leaf from whatever its form collected."""
    form, value = program.forms[leaf], program.leaves[leaf]
    n = program.num_examples
    if form.kind == "local":
        return collected[form.uses[0].index]
    if form.kind == "unused":
        zero = Materialised(
            jax.ShapeDtypeStruct((n, *jnp.shape(value)), accumulator(value.dtype))  # type: ignore[arg-type]
        )
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(statistic, zero))
    if form.kind == "accumulate":
        parts: Any = (Materialised(jnp.moveaxis(shadows[leaf], 0, form.layers)),)
    else:
        parts = tuple(_merge_steps(collected[u.index], u) for u in form.uses)

    def function(*parts: Any) -> Any:
        return statistic(parts[0] if len(parts) == 1 else Sum(parts))

    for _ in range(form.layers):
        function = jax.vmap(function)
    return function(*parts)


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
