"""Inner products of per-example gradients: within groups, between data sets, between outputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishjax.capture import Embedding, Gradient, Materialised, Outer, Sum, sitewise
from fishjax.capture.explicit import on_auto_axes
from fishjax.gradients.norms import total_over_parameters
from fishjax.gradients.pairwise import pairwise
from fishjax.gradients.results import Gram
from fishjax.types import ApplyFn, Batch, Inputs, LogProbFn, Params

__all__ = ["grouped_gram", "inner_products", "jacobian_gram"]


def grouped_gram(
    fn: LogProbFn,
) -> Callable[[Params, Batch, Bool[Array, "Q K"]], tuple[Float[Array, "Q K"], Gram]]:
    r"""Gram matrices $\langle\nabla f_{qj}, \nabla f_{qk}\rangle$ of the answers of each question.

    All Q·K rows are one batch: one forward and one backward pass. From this matrix follow the
    gradient norms of every answer's probability under any normalisation (`fishjax.scores`).

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.

    Returns:
      `(params, groups, mask) -> (outputs [Q, K], Gram)`: leaves of `groups` are `[Q, K, ...]`;
      answers outside `mask` have zero rows and columns. Their inputs must still be valid.

    Raises:
      ValueError: a leaf of `groups` does not begin with the mask's shape.
    """

    def run(params: Params, groups: Batch, mask: Array) -> tuple[Array, Gram]:
        q, k = mask.shape

        def statistic(gradient: Gradient) -> Array:
            return pairwise(gradient, gradient, q)

        def body(fn: LogProbFn, params: Params, groups: Batch, mask: Array) -> Any:
            rows = jax.tree.map(lambda leaf: _merge(leaf, (q, k)), groups)
            outputs, grams = sitewise(fn, statistic)(params, rows)
            pair = mask[:, :, None] & mask[:, None, :]
            grams = {path: jnp.where(pair, gram, 0.0) for path, gram in grams.items()}
            gram = Gram(total_over_parameters(grams, 3), grams)
            return (outputs.reshape(q, k), gram), (0, jax.tree.map(lambda x: x.ndim - 3, gram))

        return on_auto_axes(body, fn, params, groups, mask)

    return run


def _merge(leaf: Array, lead: tuple[int, int]) -> Array:
    if tuple(leaf.shape[:2]) != lead:
        raise ValueError(
            f"a leaf of groups has shape {leaf.shape}: expected it to begin with the mask's {lead}"
        )
    return leaf.reshape(lead[0] * lead[1], *leaf.shape[2:])


def inner_products(fn: LogProbFn) -> Callable[[Params, Batch, Batch], Float[Array, "N M"]]:
    r"""Inner products $\langle\nabla f(x_n), \nabla f(x'_m)\rangle$: the empirical tangent kernel.

    The two batches may differ in size and in shape. The factors of both are held in memory.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.

    Returns:
      `(params, batch_a, batch_b) -> [N, M]`.

    Raises:
      ValueError: `fn` does not return one number per example.

    References:
      Jacot et al. (2018), arXiv 1806.07572.
    """

    def run(params: Params, batch_a: Batch, batch_b: Batch) -> Array:
        def body(fn: LogProbFn, params: Params, batch_a: Batch, batch_b: Batch) -> Any:
            _, a = sitewise(fn, _flat_factors)(params, batch_a)
            _, b = sitewise(fn, _flat_factors)(params, batch_b)
            return total_over_parameters({path: _kernel(a[path], b[path]) for path in a}, 2), 0

        return on_auto_axes(body, fn, params, batch_a, batch_b)

    return run


def _flat_factors(gradient: Gradient) -> Gradient:
    """The factors themselves, with materialised gradients as `[N, P]`."""
    if isinstance(gradient, Materialised):
        return Materialised(gradient.gradient.reshape(gradient.num_examples, -1))
    return gradient


def _kernel(a: Gradient, b: Gradient) -> Array:
    """`[..., N, M]`, leading axes are layers."""

    def function(x: Gradient, y: Gradient) -> Array:
        return pairwise(x, y, 1)[0]

    for _ in range(_leading_axes(a)):
        function = jax.vmap(function)
    return function(a, b)


def _leading_axes(gradient: Gradient) -> int:
    part = gradient.parts[0] if isinstance(gradient, Sum) else gradient
    if isinstance(part, Outer):
        return part.left.ndim - 4
    return (part.ids if isinstance(part, Embedding) else part.gradient).ndim - 2


def jacobian_gram(
    apply_fn: ApplyFn,
) -> Callable[[Params, Inputs], tuple[Float[Array, "N K"], Float[Array, "N K K"]]]:
    r"""Gram matrix $J_n J_n^\top$ of the Jacobian of K outputs, for every example.

    The K outputs of an example are K rows of one batch: the forward pass is repeated K times.

    Args:
      apply_fn: `(params, inputs) -> [N, K]`, never mixing examples.

    Returns:
      `(params, inputs) -> (outputs [N, K], gram [N, K, K])`.

    Raises:
      ValueError: `apply_fn` does not return two axes.
    """

    def output(params: Params, row: tuple[Inputs, Array]) -> Array:
        inputs, k = row
        outputs = apply_fn(params, inputs)
        wanted = jnp.arange(outputs.shape[1]) == k[:, None]
        return jnp.sum(jnp.where(wanted, outputs, 0), axis=1)

    def run(params: Params, inputs: Inputs) -> tuple[Array, Array]:
        shape = jax.eval_shape(apply_fn, params, inputs).shape
        if len(shape) != 2:
            raise ValueError(f"apply_fn returned shape {shape}: expected [N, K]")
        n, k = shape
        repeated = jax.tree.map(
            lambda x: jnp.broadcast_to(x[:, None], (n, k, *jnp.shape(x)[1:])), inputs
        )
        ks = jnp.broadcast_to(jnp.arange(k), (n, k))
        outputs, gram = grouped_gram(output)(params, (repeated, ks), jnp.ones((n, k), bool))
        return outputs, gram.total

    return run
