"""Inner products between two data sets: the empirical tangent kernel, in tiles."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.capture import Gradient
from fishjax.capture.collect import collect
from fishjax.capture.explicit import on_auto_axes
from fishjax.capture.trace import Trace
from fishjax.capture.verify import verify_once
from fishjax.gradients.metric import Metric, total_over_parameters
from fishjax.operators import Operator
from fishjax.trees import Selection, leading_size
from fishjax.types import Batch, LogProbFn, Params

__all__ = ["factors", "inner_products", "layers_of", "over_layers"]


def inner_products(
    fn: LogProbFn,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    tile: int | None = None,
) -> Callable[[Params, Batch, Batch], Float[Array, "N M"]]:
    r"""Inner products $\nabla f(x_n)^\top\Sigma\nabla f(x'_m)$: the empirical tangent kernel.

    The two batches may differ in size and in shape.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      covariance: as in `squared_norms`.
      parameters: as in `squared_norms`.
      tile: at most this many examples of each batch are held at a time. The factors of the first
        are computed once, those of the second once per tile of the first. None: all at once.

    Returns:
      `(params, batch_a, batch_b) -> [N, M]`.

    Raises:
      ValueError: as `squared_norms`; tile below 1.

    References:
      Jacot et al. (2018), arXiv 1806.07572.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}: expected a positive number of examples")

    def run(fn: Any, covariance: Any, params: Params, batch_a: Batch, batch_b: Batch) -> Array:
        def factors_of(batch: Batch) -> tuple[Trace, dict[str, Gradient]]:
            program = Trace(fn, params, batch, parameters=parameters)
            return program, collect(program, factors)[1]

        def block(a: tuple[Trace, Any], b: tuple[Trace, Any]) -> Array:
            metric = Metric(covariance, a[0])
            layers = layers_of(a[0])
            products = {
                path: over_layers(metric.kernel, layers[path])(
                    gradient, b[1][path], metric.argument_of(path, layers[path])
                )
                for path, gradient in a[1].items()
            }
            return total_over_parameters(metric.finish(products), 2)

        if tile is None:
            return block(factors_of(batch_a), factors_of(batch_b))
        for batch in (batch_a, batch_b):  # inside the loops there are no values to compare
            verify_once(fn, params, batch, has_aux=False)
        n, m = leading_size(batch_a), leading_size(batch_b)
        tiles_a, tiles_b = _tiles(batch_a, min(tile, n)), _tiles(batch_b, min(tile, m))

        def row(a: Batch) -> Array:
            held = factors_of(a)
            blocks = jax.lax.map(lambda b: block(held, factors_of(b)), tiles_b)
            return jnp.moveaxis(blocks, 0, 1).reshape(blocks.shape[1], -1)

        kernel = jax.lax.map(row, tiles_a)
        return kernel.reshape(-1, kernel.shape[-1])[:n, :m]

    return on_auto_axes(run, fn, lambda *_: 0, extra=covariance, num_batches=2)


def _tiles(batch: Batch, tile: int) -> Batch:
    """`[N, ...]` to `[tiles, tile, ...]`; the last one is filled up with the first example."""
    n = leading_size(batch)
    order = jnp.pad(jnp.arange(n), (0, -n % tile))
    return jax.tree.map(lambda x: jnp.asarray(x)[order].reshape(-1, tile, *jnp.shape(x)[1:]), batch)


def factors(gradient: Gradient, argument: Any = None) -> Gradient:
    """The factored gradients themselves, as a statistic."""
    del argument
    return gradient


def layers_of(program: Trace) -> dict[str, int]:
    """How many layer axes are in front of the statistics of every parameter."""
    return {program.paths[i]: program.forms[i].layers for i in program.reported}


def over_layers(function: Callable[..., Any], layers: int) -> Callable[..., Any]:
    """Maps a function over leading layer axes."""
    for _ in range(layers):
        function = jax.vmap(function)
    return function
