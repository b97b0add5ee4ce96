"""Squared norms of per-example gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.capture import Gradient, sitewise
from fishjax.capture.explicit import on_auto_axes
from fishjax.gradients.pairwise import pairwise
from fishjax.gradients.results import SquaredNorms
from fishjax.types import Batch, LogProbFn, Params

__all__ = ["squared_norms"]


def squared_norms(
    fn: LogProbFn,
) -> Callable[[Params, Batch], tuple[Float[Array, " N"], SquaredNorms]]:
    r"""Exact $\|\nabla_\theta f(\theta, x_n)\|^2$ of every example, without forming a gradient.

    One forward and one activations-only backward pass, plus the statistics. Exact for any pure
    function; `capture.uses` says how each parameter is covered.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples; `fn(params, batch)[n]` means
        `fn(params, batch[n:n+1])[0]`.

    Returns:
      `(params, batch) -> (outputs [N], SquaredNorms)`, in squared units of the output per unit
      of the parameters, non-negative.

    Raises:
      ValueError: `fn` does not return one number per example.

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

    def statistic(gradient: Gradient) -> Array:
        norms = pairwise(gradient, gradient, gradient.num_examples)[:, 0, 0]
        return jnp.maximum(norms, 0.0)

    def run(params: Params, batch: Batch) -> tuple[Array, SquaredNorms]:
        def body(fn: LogProbFn, params: Params, batch: Batch) -> Any:
            outputs, norms = sitewise(fn, statistic)(params, batch)
            results = outputs, SquaredNorms(total_over_parameters(norms, 1), norms)
            return results, jax.tree.map(lambda x: x.ndim - 1, results)

        return on_auto_axes(body, fn, params, batch)

    return run


def total_over_parameters(by_parameter: dict[str, Array], ndim: int) -> Array:
    """Sums over parameters and over leading layer axes, down to `ndim` axes."""
    flat = [v.reshape(-1, *v.shape[v.ndim - ndim :]).sum(axis=0) for v in by_parameter.values()]
    return jnp.sum(jnp.stack(flat), axis=0)
