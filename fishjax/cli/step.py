"""The one compiled function of a scoring run: a padded batch in, everything a row needs out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fishjax.gradients import grouped_gram, output_squared_norms
from fishjax.scores import (
    TOKEN_SCORES,
    Answers,
    Choice,
    choose,
    evaluate_scores,
    log_probabilities,
    parameter_shares,
)
from fishjax.tasks import SHARED_LEAVES, token_log_likelihoods
from fishjax.trees import Selection
from fishjax.types import ApplyFn, Batch, Params

__all__ = ["StepOutputs", "build_step"]

Step = Callable[[Params, Batch, Array], "StepOutputs"]


class StepOutputs(NamedTuple):
    """Numbers of Q questions with up to K answers; values at missing answers mean nothing.

    Attributes:
      log_likelihoods: `[Q, K]` nats.
      log_probabilities: `[Q, K]` nats, choice-normalised.
      finite: `[Q]` whether log-likelihoods, gradients and entropies are all finite.
      chosen: `[Q]` index of the model's answer.
      tied: `[Q]` whether another answer has the same log-likelihood.
      scores: name to `[Q, K]`.
      token_scores: name to `[Q]`, of the chosen answer; empty unless asked for.
      token_values: of every token of the chosen answer, `[Q, A]`: `log_likelihoods`, and
        `log_squared_norms` of their gradients; empty unless asked for.
      shares: parameter path to `[Q]` or `[Q, L]`, of the chosen answer.
    """

    log_likelihoods: Float[Array, "Q K"]
    log_probabilities: Float[Array, "Q K"]
    finite: Bool[Array, " Q"]
    chosen: Int[Array, " Q"]
    tied: Bool[Array, " Q"]
    scores: dict[str, Float[Array, "Q K"]]
    token_scores: dict[str, Float[Array, " Q"]]
    token_values: dict[str, Float[Array, "Q A"]]
    shares: dict[str, Float[Array, "..."]]


def build_step(
    apply_fn: Callable[..., Any],
    *,
    with_token_scores: bool = False,
    parameters: Selection = None,
) -> Step:
    """Builds `step(params, groups, mask) -> StepOutputs`, a pure function to compile.

    Args:
      apply_fn: `(params, token_ids, positions) -> logits`; for groups with a `prefix` it takes
        that and `prefix_lengths` in place of `positions`.
      with_token_scores: also take one gradient per token of the chosen answer.
      parameters: whose gradients, as in `fishjax.trees.select_paths`; the rest is frozen.

    Returns:
      A function of `BatchPlan.groups` and `BatchPlan.mask`.
    """
    token_fn = token_log_likelihoods(apply_fn)

    def answer_fn(params: Params, rows: Batch) -> tuple[Array, Any]:
        tokens = token_fn(params, rows)
        return jnp.sum(tokens.log_likelihoods, axis=-1), tokens

    def step(params: Params, groups: Batch, mask: Array) -> StepOutputs:
        shared = [name for name in SHARED_LEAVES if name in groups]
        gram_fn = grouped_gram(
            answer_fn, has_aux=True, parameters=parameters, shared=shared or None
        )
        (log_likelihoods, tokens), gram = gram_fn(params, groups, mask)
        num_tokens = jnp.sum(groups["target_mask"] > 0, axis=-1)
        entropies = tokens.entropies.sum(axis=-1) / jnp.maximum(num_tokens, 1)
        answers = Answers(log_likelihoods, gram.total, mask, num_tokens, entropies)
        choice = choose(log_likelihoods, mask)
        token_scores, token_values = {}, {}
        if with_token_scores:
            of_tokens = lambda params, rows: token_fn(params, rows).log_likelihoods  # noqa: E731
            token_scores, token_values = _token_scores(
                of_tokens, params, groups, choice, parameters
            )
        return StepOutputs(
            log_likelihoods=log_likelihoods,
            log_probabilities=log_probabilities(log_likelihoods, mask),
            finite=_all_finite(answers),
            chosen=choice.index,
            tied=choice.tied,
            scores=evaluate_scores(answers),
            token_scores=token_scores,
            token_values=token_values,
            shares=parameter_shares(log_likelihoods, gram.by_parameter, mask, choice.index),
        )

    return step


def _all_finite(answers: Answers) -> Array:
    per_answer = jnp.isfinite(answers.log_likelihoods) & jnp.isfinite(answers.token_entropies)
    pairs = answers.mask[:, :, None] & answers.mask[:, None, :]
    return jnp.all(per_answer | ~answers.mask, axis=1) & jnp.all(
        jnp.isfinite(answers.gram) | ~pairs, axis=(1, 2)
    )


def _token_scores(
    token_fn: ApplyFn, params: Params, groups: Batch, choice: Choice, parameters: Selection
) -> tuple[dict[str, Array], dict[str, Array]]:
    """`(scores, values)` of the tokens of the chosen answers only: K times cheaper than of all."""
    questions = jnp.arange(groups["target_mask"].shape[0])
    rows = {
        name: leaf if name in SHARED_LEAVES else leaf[questions, choice.index]
        for name, leaf in groups.items()
    }
    # one token at a time: the memory of one backward pass, whatever the length
    log_likelihoods, norms = output_squared_norms(token_fn, chunk=1, parameters=parameters)(
        params, rows
    )
    kept = rows["target_mask"] > 0
    scores = {s.name: s.function(log_likelihoods, norms.total, kept) for s in TOKEN_SCORES}
    values = {
        "log_likelihoods": log_likelihoods,
        "log_squared_norms": jnp.log(norms.total),
    }
    return scores, values
