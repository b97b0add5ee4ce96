"""Norms together with sums of gradients, for training loops that clip or weight examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.capture import Gradient
from fishjax.capture.collect import collect
from fishjax.capture.explicit import axis_from_end, axis_from_start, on_auto_axes
from fishjax.capture.trace import Trace
from fishjax.gradients.kernels import factors, layers_of, over_layers
from fishjax.gradients.norms import non_negative
from fishjax.gradients.pairwise import pairwise
from fishjax.gradients.results import SquaredNorms
from fishjax.trees import Selection
from fishjax.types import Batch, LogProbFn, Params, WithAux

__all__ = ["ClippedGradients", "clipped_gradients", "gradient_blocks"]


class ClippedGradients(NamedTuple):
    """Norms, the plain and the clipped sum of per-example gradients.

    Attributes:
      norms: of every example.
      gradient: the sum over examples, a tree like the selected parameters.
      clipped: the sum after every example's gradient was scaled down to the maximal norm.
    """

    norms: SquaredNorms
    gradient: Params
    clipped: Params


def clipped_gradients(
    fn: LogProbFn | WithAux,
    max_norm: float,
    *,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Callable[[Params, Batch], tuple[Any, ClippedGradients]]:
    r"""Norms, $\sum_n g_n$ and $\sum_n g_n\min(1, c/\|g_n\|)$, all from one backward pass.

    The factors of every dense layer are held until the norms are known; no per-example gradient is
    formed where its Gram form is cheaper. The norm is over the selected parameters; unselected
    leaves of the sums are zero.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      max_norm: c, positive.
      parameters: as in `squared_norms`.
      has_aux: whether `fn` returns `(values [N], aux)`.

    Returns:
      `(params, batch) -> (outputs [N], ClippedGradients)`; sums are float32 or float64.

    Raises:
      ValueError: max_norm is not positive; as `squared_norms`.

    References:
      Bu et al. (2023), arXiv 2210.00038 (book-keeping).
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm}: expected a positive number")

    def run(fn: Any, _: Any, params: Params, batch: Batch) -> tuple[Any, ClippedGradients]:
        program = Trace(fn, params, batch, parameters=parameters, has_aux=has_aux)
        outputs, held = collect(program, _norm_and_factors)
        norms = non_negative({path: norm for path, (norm, _) in held.items()}, 1)
        root = jnp.sqrt(norms.total)
        weights = jnp.where(root > max_norm, max_norm / jnp.where(root > 0, root, 1.0), 1.0)
        total = _weighted(program, held, jnp.ones_like(weights))
        return outputs, ClippedGradients(norms, total, _weighted(program, held, weights))

    def places(results: Any, specs: Params) -> Any:
        norms = axis_from_end(results[1].norms, 1)
        return axis_from_start(results[0], 0), ClippedGradients(norms, specs, specs)

    return on_auto_axes(run, fn, places)


def _norm_and_factors(gradient: Gradient, argument: Any) -> tuple[Array, Gradient]:
    norm = pairwise(gradient, gradient, gradient.num_examples)[:, 0, 0]
    return norm, factors(gradient, argument)


def _weighted(program: Trace, held: dict[str, Any], weights: Array) -> Params:
    """The weighted sum of gradients as a tree of parameters."""
    layers, sums = layers_of(program), []
    for path, leaf in zip(program.paths, program.leaves, strict=True):
        if path not in held:
            sums.append(jnp.zeros_like(leaf))
            continue
        add = over_layers(lambda g: g.weighted_sum(weights), layers[path])
        sums.append(add(held[path][1]))
    return jax.tree.unflatten(program.treedef, sums)


def gradient_blocks(
    fn: LogProbFn | WithAux,
    *,
    parameters: Selection,
    has_aux: bool = False,
) -> Callable[[Params, Batch], tuple[Any, dict[str, Float[Array, "N ..."]]]]:
    """The per-example gradients themselves, of chosen parameters only.

    Memory grows with N times their size; unselected parameters cost nothing.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      parameters: as in `squared_norms`.
      has_aux: whether `fn` returns `(values [N], aux)`.

    Returns:
      `(params, batch) -> (outputs [N], {path: [N, *shape of the parameter]})`.
    """

    def run(fn: Any, _: Any, params: Params, batch: Batch) -> tuple[Any, dict[str, Array]]:
        program = Trace(fn, params, batch, parameters=parameters, has_aux=has_aux)
        layers = layers_of(program)
        outputs, blocks = collect(program, lambda gradient, _: gradient.materialise())
        return outputs, {p: jnp.moveaxis(block, layers[p], 0) for p, block in blocks.items()}

    return on_auto_axes(run, fn, lambda results, _: axis_from_start(results, 0))
