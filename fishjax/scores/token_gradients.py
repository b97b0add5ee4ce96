"""Squared gradient norms of single tokens."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from fishjax.gradients import squared_norms
from fishjax.types import Batch, LogProbFn, Params

__all__ = ["token_squared_norms"]

_PER_TOKEN = ("positions", "targets", "target_mask")


def token_squared_norms(fn: LogProbFn) -> Callable[[Params, Batch], Float[Array, "N A"]]:
    r"""$\|\nabla \log p(v_t | v_{<t})\|^2$ of every continuation token, zero at padding.

    One backward pass a token position, N sequences at a time, so memory does not grow with A.

    Args:
      fn: log-likelihood of rows whose leaves `positions`, `targets` and `target_mask` are
        `[N, A]`, a sum over A (`fishjax.tasks.answer_log_likelihoods`).

    Returns:
      A function of parameters and such rows.
    """

    def run(params: Params, batch: Batch) -> Array:
        shared = {name: leaf for name, leaf in batch.items() if name not in _PER_TOKEN}

        def one_position(columns: Batch) -> Array:
            step = {name: column[:, None] for name, column in columns.items()}
            return squared_norms(fn)(params, shared | step)[1].total

        return jax.lax.map(one_position, {name: batch[name].T for name in _PER_TOKEN}).T

    return run
