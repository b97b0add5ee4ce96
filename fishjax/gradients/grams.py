"""Inner products of per-example gradients within groups: a question's answers, K outputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fishjax.capture import Gradient
from fishjax.capture.collect import collect
from fishjax.capture.explicit import axis_from_end, axis_from_start, on_auto_axes
from fishjax.capture.trace import Grouping, Trace
from fishjax.gradients.metric import Metric, total_over_parameters
from fishjax.gradients.results import Gram
from fishjax.operators import Operator
from fishjax.trees import Selection, flatten_with_paths, select_paths
from fishjax.types import ApplyFn, Batch, Inputs, LogProbFn, Params, WithAux

__all__ = ["grouped_gram", "jacobian_gram", "output_gram"]


def grouped_gram(
    fn: LogProbFn | WithAux,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    has_aux: bool = False,
    shared: Selection = None,
) -> Callable[[Params, Batch, Bool[Array, "Q K"]], tuple[Any, Gram]]:
    r"""Gram matrices $\nabla f_{qj}^\top\Sigma\nabla f_{qk}$ of the answers of each question.

    All Q·K rows are one batch: one forward and one backward pass. From this matrix follow the
    gradient norms of every answer's probability under any normalisation (`fishjax.scores`).

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      covariance: as in `squared_norms`.
      parameters: as in `squared_norms`.
      has_aux: whether `fn` returns `(values [N], aux)`; aux leaves come back as `[Q, K, ...]`.
      shared: leaves of `groups` that all answers of a question have in common, by path as
        `parameters`: they are `[Q, ...]`, and what depends on nothing else is computed once a
        question, forward. None: none. `fn` sees them like the others, one row an answer.

    Returns:
      `(params, groups, mask) -> (outputs [Q, K], Gram)`: other leaves of `groups` are
      `[Q, K, ...]`; answers outside `mask` have zero rows and columns. Their inputs must still be
      valid.

    Raises:
      ValueError: a leaf of `groups` does not begin with the mask's shape; as `squared_norms`.
    """

    def run(
        fn: Any, covariance: Any, params: Params, groups: Batch, mask: Array
    ) -> tuple[Any, Gram]:
        q, k = mask.shape
        grouping = _grouping(groups, (q, k), shared)
        batch = grouping.rows(groups) if shared is None else groups
        program = Trace(
            fn, params, batch, parameters=parameters, has_aux=has_aux,
            grouping=None if shared is None else grouping,
        )  # fmt: skip
        metric = Metric(covariance, program)

        def statistic(gradient: Gradient, argument: Any) -> Any:
            return metric.products(gradient, gradient, q, argument)

        outputs, collected = collect(program, statistic, argument_of=metric.argument_of)
        pair = mask[:, :, None] & mask[:, None, :]
        grams = {p: jnp.where(pair, gram, 0.0) for p, gram in metric.finish(collected).items()}
        if shared is None:
            outputs = jax.tree.map(lambda x: x.reshape(q, k, *x.shape[1:]), outputs)
        return outputs, Gram(total_over_parameters(grams, 3), grams)

    return on_auto_axes(run, fn, _places, extra=covariance)


def _places(results: Any, _: Any) -> Any:
    return axis_from_start(results[0], 0), axis_from_end(results[1], 3)


def _grouping(groups: Batch, lead: tuple[int, int], shared: Selection) -> Grouping:
    paths, leaves, _ = flatten_with_paths(groups)
    taken = [False] * len(paths) if shared is None else select_paths(paths, shared)
    for path, leaf, is_shared in zip(paths, leaves, taken, strict=True):
        expected = lead[:1] if is_shared else lead
        if tuple(jnp.shape(leaf)[: len(expected)]) != expected:
            raise ValueError(
                f"leaf {path!r} of groups has shape {jnp.shape(leaf)}: expected it to begin with "
                f"the mask's {expected}"
            )
    if all(taken):
        raise ValueError("all leaves of groups are shared: then the answers are all the same")
    return Grouping(lead, tuple(taken))


def output_gram(
    apply_fn: ApplyFn | WithAux,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Callable[[Params, Inputs], tuple[Any, Gram]]:
    r"""Gram matrix $J_n\Sigma J_n^\top$ of the Jacobian of K outputs, for every example.

    One forward pass; the K backward passes share it.

    Args:
      apply_fn: `(params, inputs) -> [N, K]`, never mixing examples.
      covariance: as in `squared_norms`.
      parameters: as in `squared_norms`.
      has_aux: as in `squared_norms`.

    Returns:
      `(params, inputs) -> (outputs [N, K], Gram)`, Q of the Gram being N.

    Raises:
      ValueError: `apply_fn` does not return two axes; as `squared_norms`.
    """

    def run(apply_fn: Any, covariance: Any, params: Params, inputs: Inputs) -> tuple[Any, Gram]:
        program = Trace(
            apply_fn, params, inputs, parameters=parameters, has_aux=has_aux, vector=True
        )
        metric = Metric(covariance, program)

        def statistic(gradient: Gradient, argument: Any) -> Any:
            return metric.products(gradient, gradient, program.num_examples, argument)

        outputs, collected = collect(program, statistic, argument_of=metric.argument_of)
        grams = metric.finish(collected)
        return outputs, Gram(total_over_parameters(grams, 3), grams)

    return on_auto_axes(run, apply_fn, _places, extra=covariance)


def jacobian_gram(
    apply_fn: ApplyFn | WithAux,
    *,
    covariance: Operator | None = None,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Callable[[Params, Inputs], tuple[Any, Float[Array, "N K K"]]]:
    """`output_gram` of all parameters together: `(params, inputs) -> (outputs, [N, K, K])`."""
    gram_fn = output_gram(apply_fn, covariance=covariance, parameters=parameters, has_aux=has_aux)

    def fn(params: Params, inputs: Inputs) -> tuple[Any, Float[Array, "N K K"]]:
        outputs, gram = gram_fn(params, inputs)
        return outputs, gram.total

    return fn
