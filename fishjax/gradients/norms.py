"""Squared norms of per-example gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fishjax.capture.collect import collect
from fishjax.capture.explicit import axis_from_end, axis_from_start, on_auto_axes
from fishjax.capture.trace import Trace
from fishjax.gradients.metric import Metric, total_over_parameters
from fishjax.gradients.results import SquaredNorms
from fishjax.operators import Operator
from fishjax.trees import Selection
from fishjax.types import ApplyFn, Batch, Inputs, LogProbFn, Params, WithAux

__all__ = ["output_squared_norms", "squared_norms"]


def squared_norms(
    fn: LogProbFn | WithAux,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Callable[[Params, Batch], tuple[Any, SquaredNorms]]:
    r"""Exact $\|\nabla_\theta f(\theta, x_n)\|^2$ of every example, without forming a gradient.

    One forward and one activations-only backward pass, plus the statistics. Exact for any pure
    function; `capture.uses` says how each parameter is covered. With a `covariance` $\Sigma$ it is
    $\nabla f^\top\Sigma\nabla f$, for a Kronecker or isotropic one still without a gradient.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples; `fn(params, batch)[n]` means
        `fn(params, batch[n:n+1])[0]`.
      covariance: an operator on the selected parameters; None: the identity. What couples
        parameters is shared out: `by_parameter` holds $g_i^\top(\Sigma g)_i$ and sums to the total.
      parameters: which parameters, as in `fishjax.trees.select_paths`; the others cost nothing.
      has_aux: whether `fn` returns `(values [N], aux)`, aux leaves with the example axis first.

    Returns:
      `(params, batch) -> (outputs [N], SquaredNorms)`, in squared units of the output per unit
      of the parameters, `.total` non-negative for a positive covariance; with `has_aux` the first
      is `(outputs, aux)`.

    Raises:
      ValueError: `fn` does not return one number per example; the selection or the covariance does
        not fit the parameters.
      MixedExamplesError: called outside `jit`, `fn` turns out to mix examples.

    Example:
      >>> import jax.numpy as jnp
      >>> from fishjax import gradients
      >>> fn = lambda p, x: -0.5 * (p["mean"] - x) ** 2
      >>> _, norms = gradients.squared_norms(fn)({"mean": 3.0}, jnp.array([0.0, 7.0, -2.0]))
      >>> norms.total ** 0.5
      Array([3., 4., 5.], dtype=float32)

    References:
      Goodfellow (2015), arXiv 1510.01799; Gruenefeld et al. (2026), arXiv 2603.29466.
    """

    def run(fn: Any, covariance: Any, params: Params, batch: Batch) -> tuple[Any, SquaredNorms]:
        program = Trace(fn, params, batch, parameters=parameters, has_aux=has_aux)
        metric = Metric(covariance, program)
        outputs, collected = collect(program, metric.norms, argument_of=metric.argument_of)
        norms = {path: v[..., 0, 0] for path, v in metric.finish(collected).items()}
        return outputs, non_negative(norms, 1, metric.couples)

    def places(results: Any, _: Any) -> Any:
        return axis_from_start(results[0], 0), axis_from_end(results[1], 1)

    return on_auto_axes(run, fn, places, extra=covariance)


def non_negative(norms: dict[str, Array], ndim: int, shares: bool = False) -> SquaredNorms:
    """Clamps what rounding made negative, and sums over parameters; `shares` may be negative."""
    if not shares:
        norms = {path: jnp.maximum(v, 0.0) for path, v in norms.items()}
    return SquaredNorms(jnp.maximum(total_over_parameters(norms, ndim), 0.0), norms)


def output_squared_norms(
    apply_fn: ApplyFn | WithAux,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    chunk: int = 16,
    has_aux: bool = False,
) -> Callable[[Params, Inputs], tuple[Any, SquaredNorms]]:
    r"""Exact squared gradient norm of each of K outputs of every example.

    With `apply_fn` returning the log-probability of every token, this is
    $\|\nabla\log p(t_j | t_{<j})\|^2$ for every j. One forward pass; the backward passes of `chunk`
    outputs run together, and memory grows with `chunk` instead of K.

    Args:
      apply_fn: `(params, inputs) -> [N, K]`, never mixing examples.
      covariance: as in `squared_norms`.
      parameters: as in `squared_norms`.
      chunk: outputs pulled back at a time.
      has_aux: as in `squared_norms`.

    Returns:
      `(params, inputs) -> (outputs [N, K], SquaredNorms)` with `.total [N, K]` and
      `.by_parameter` of `[N, K]`, or `[L, N, K]` for scanned layers.

    Raises:
      ValueError: as `squared_norms`; `apply_fn` does not return two axes; chunk below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: expected a positive number of outputs")

    def run(
        apply_fn: Any, covariance: Any, params: Params, inputs: Inputs
    ) -> tuple[Any, SquaredNorms]:
        program = Trace(
            apply_fn, params, inputs, parameters=parameters, has_aux=has_aux, vector=True
        )
        metric = Metric(covariance, program)
        outputs, collected = collect(
            program, metric.norms, chunk=chunk, argument_of=metric.argument_of
        )
        n, k = program.num_examples, program.num_outputs

        def unstacked(chunks: Array) -> Array:
            """`[C, ..., N * chunk, 1, 1]` to `[..., N, K]`."""
            chunks = jnp.moveaxis(chunks[..., 0, 0], 0, -1)
            chunks = chunks.reshape(*chunks.shape[:-2], n, chunk, -1)
            return jnp.swapaxes(chunks, -1, -2).reshape(*chunks.shape[:-2], -1)[..., :k]

        finished = jax.vmap(metric.finish)(collected)
        norms = {path: unstacked(v) for path, v in finished.items()}
        return outputs, non_negative(norms, 2, metric.couples)

    def places(results: Any, _: Any) -> Any:
        return axis_from_start(results[0], 0), axis_from_end(results[1], 2)

    return on_auto_axes(run, apply_fn, places, extra=covariance)
