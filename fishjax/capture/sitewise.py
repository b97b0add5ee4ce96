"""Any statistic of any parameter's per-example gradient, from one backward pass."""

from collections.abc import Callable
from typing import Any

from fishjax.capture.collect import collect
from fishjax.capture.explicit import axis_from_start, on_auto_axes
from fishjax.capture.factored import Gradient
from fishjax.capture.trace import Trace
from fishjax.trees import Selection
from fishjax.types import Batch, LogProbFn, Params, WithAux

__all__ = ["Statistic", "sitewise"]

Statistic = Callable[[Gradient], Any]


def sitewise(
    fn: LogProbFn | WithAux,
    statistic: Statistic,
    *,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Callable[[Params, Batch], tuple[Any, dict[str, Any]]]:
    """Computes a statistic of every parameter's per-example gradients, in one backward pass.

    `statistic` receives each parameter's gradients in factored form (`Outer`, `Embedding`,
    `Materialised` or, for a parameter used several times, `Sum`) with the example axis first,
    and returns a pytree of floating arrays: per example, across examples or summed. For a
    parameter that a `scan` slices into layers it is called once per layer.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      statistic: function of a factored gradient.
      parameters: which parameters, as in `fishjax.trees.select_paths`; the others cost nothing.
      has_aux: whether `fn` returns `(values [N], aux)`, aux leaves with the example axis first.

    Returns:
      `(params, batch) -> (outputs [N], {path: statistic})`; with `has_aux` the first is
      `(outputs, aux)`. Statistics of scanned layers have the layer axis first. On a mesh with
      Explicit axes statistics come back whole on every device.

    Raises:
      ValueError: `fn` does not return one number per example, the batch has no common size, or
        the selection takes nothing.
      MixedExamplesError: called outside `jit`, `fn` turns out to mix examples.

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

    def run(fn: Any, _: Any, params: Params, batch: Batch) -> tuple[Any, dict[str, Any]]:
        program = Trace(fn, params, batch, parameters=parameters, has_aux=has_aux)
        return collect(program, lambda gradient, _: statistic(gradient))

    def places(results: Any, _: Any) -> Any:
        return axis_from_start(results[0], 0), axis_from_start(results[1], None)

    return on_auto_axes(run, fn, places)
