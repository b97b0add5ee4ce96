"""Finds functions that mix examples, by comparing a batch with its examples one at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from fishjax.trees import leading_size, take_example
from fishjax.types import Batch, Params

__all__ = ["MixedExamplesError", "verify", "verify_once"]


class MixedExamplesError(ValueError):
    """The function's value for one example depends on the other examples of its batch."""


def verify(fn: Any, params: Params, batch: Batch, *, has_aux: bool = False) -> None:
    """Checks that `fn(params, batch)[n]` is `fn(params, batch[n:n+1])[0]` for every n.

    Batch normalisation in training, routing with a capacity, or one dropout key for a whole batch
    break this, and then a per-example gradient has no meaning. Costs two forward passes. Functions
    of gradients do this themselves when they are called outside `jit`; call it once before
    compiling. Two examples at least are needed to see a difference.

    Args:
      fn: `(params, batch) -> [N]` or `[N, K]`; `(values, aux)` if `has_aux`.
      params: concrete arrays.
      batch: concrete arrays, example axis first.
      has_aux: as above.

    Raises:
      MixedExamplesError: they differ by more than rounding: by more than the square root of the
        precision of the coarsest floating type among parameters and outputs, relative to the
        largest output.
      ValueError: the batched call does not return one row per example.
    """

    def values(params: Params, batch: Batch) -> Any:
        out = fn(params, batch)
        return out[0] if has_aux else out

    def single(params: Params, example: Batch) -> Any:
        return values(params, take_example(example))[0]

    together = jax.jit(values)(params, batch)
    n = leading_size(batch)
    if jnp.ndim(together) < 1 or together.shape[0] != n:
        raise ValueError(
            f"fn returned shape {jnp.shape(together)} for a batch of {n} examples: expected the "
            f"example axis first, ({n},)"
        )
    apart = np.asarray(jax.jit(jax.vmap(single, (None, 0)))(params, batch), np.float64)
    together = np.asarray(together, np.float64)
    finite = np.isfinite(apart) & np.isfinite(together)
    scale = np.max(np.abs(apart), initial=0.0, where=finite)
    error = np.abs(np.where(finite, together, 0.0) - np.where(finite, apart, 0.0))
    error = np.where(np.isnan(together) != np.isnan(apart), np.inf, error)
    tolerance = np.sqrt(_coarsest(params, values, batch)) * scale
    if np.max(error, initial=0.0) > tolerance:
        worst = int(np.argmax(error.reshape(n, -1).max(axis=1)))
        raise MixedExamplesError(
            f"fn mixes examples: example {worst} gives {together[worst]!s} in the batch of {n} and "
            f"{apart[worst]!s} alone. Typical causes: batch normalisation in training mode (use "
            "running statistics), routing with a capacity, one random key for the whole batch "
            "(give every example its own)"
        )


def _coarsest(params: Params, values: Any, batch: Batch) -> float:
    """The machine precision of the coarsest floating type that the program computes in."""
    jaxpr = jax.make_jaxpr(values)(params, batch)
    dtypes = {v.dtype for v in jax.tree.leaves(params) if hasattr(v, "dtype")}
    dtypes |= {v.aval.dtype for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars}
    floating = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return max((float(jnp.finfo(d).eps) for d in floating), default=1e-7)


def verify_once(fn: Any, params: Params, batch: Batch, has_aux: bool) -> None:
    """`verify` where there are values to compare: not while a program is being traced."""
    leaves = jax.tree.leaves((params, batch))
    if any(isinstance(x, core.Tracer | jax.ShapeDtypeStruct) for x in leaves):
        return
    if any(isinstance(x, jax.Array) and not x.is_fully_addressable for x in leaves):
        return
    if leading_size(batch) > 1:
        verify(fn, params, batch, has_aux=has_aux)
