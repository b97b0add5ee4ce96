"""Log-likelihoods of answers: what is compared, and what is differentiated."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .shared_prompts import SHARED_LEAVES

__all__ = ["TokenStatistics", "answer_log_likelihoods", "token_log_likelihoods"]

Rows = Mapping[str, Array]


class TokenStatistics(NamedTuple):
    """Per answer token, in nats; 0 at padding.

    Attributes:
      log_likelihoods: `[N, A]` log-probability of each target.
      entropies: likewise, entropy of the distribution each target was drawn from, in
        [0, log V].
    """

    log_likelihoods: Float[Array, "N A"]
    entropies: Float[Array, "N A"]


def answer_log_likelihoods(
    apply_fn: Callable[..., Array],
) -> Callable[[Any, Rows], Float[Array, " N"]]:
    r"""Builds `fn(params, rows) -> [N]`: $\log p(\text{answer} \mid \text{prompt})$ in nats.

    The sum over the answer's tokens of their log-probabilities, in at least float32. Examples never
    mix, so `fn` is what `fishjax.gradients` differentiates. Padding contributes exactly
    zero to the value and to the gradient.

    Args:
      apply_fn: `(params, token_ids, positions) -> logits`, as `fishjax.models` builds it.

    Returns:
      A function of parameters and rows `token_ids` [N, T], `positions`, `targets` and
      `target_mask` [N, A]: the leaves of `BatchPlan.groups` with their first two axes as one.
    """

    def fn(params, rows):
        log_probs = _masked_log_probs(apply_fn, params, rows)
        return jnp.sum(_of_targets(log_probs, rows), axis=-1)

    return fn


def token_log_likelihoods(
    apply_fn: Callable[..., Array],
) -> Callable[[Any, Rows], TokenStatistics]:
    """Builds `fn(params, rows) -> TokenStatistics`, for baselines and per-token scores.

    Arguments and rows are those of `answer_log_likelihoods`; the sum over A of
    `log_likelihoods` is its result. In rows with a `prefix` (`BatchPlan`) the targets are what
    follows each of `token_ids`; `apply_fn` must take `prefix` and `prefix_lengths`.
    """

    def fn(params, rows):
        log_probs = _masked_log_probs(apply_fn, params, rows)
        entropies = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        keep = rows["target_mask"] > 0
        return TokenStatistics(_of_targets(log_probs, rows), jnp.where(keep, entropies, 0))

    return fn


def _masked_log_probs(apply_fn: Callable[..., Array], params: Any, rows: Rows) -> Array:
    """Log-probabilities `[N, A, V]`; uniform at padding.

    The logits at padding are replaced before the soft-max, not after: a NaN or infinity there would
    otherwise turn the zero cotangent of the mask into NaN.
    """
    if "prefix" in rows:
        prefix = {name: rows[name] for name in SHARED_LEAVES}
        logits = apply_fn(params, rows["token_ids"], **prefix)
    else:
        logits = apply_fn(params, rows["token_ids"], rows["positions"])
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.log_softmax(jnp.where(rows["target_mask"][..., None] > 0, logits, 0), axis=-1)


def _of_targets(log_probs: Array, rows: Rows) -> Float[Array, "N A"]:
    targets = jnp.take_along_axis(log_probs, rows["targets"][..., None], axis=-1)[..., 0]
    return jnp.where(rows["target_mask"] > 0, targets, 0) * rows["target_mask"]
