"""The dense oracle: the same quantities from materialised per-example gradients.

Obvious and slow: `jax.vmap(jax.grad)` and a matrix product. The fast functions of this room
are tested against it, and it stays available for a user's own check.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fishjax.gradients.results import Gram, SquaredNorms
from fishjax.trees import flatten_with_paths, take_example
from fishjax.types import Batch, LogProbFn, Params

__all__ = ["dense_grouped_gram", "dense_squared_norms", "per_example_gradients"]

_HIGHEST = jax.lax.Precision.HIGHEST


def per_example_gradients(fn: LogProbFn) -> Callable[[Params, Batch], tuple[Array, Params]]:
    """`(params, batch) -> (outputs [N], gradients)`, leaves `[N, *parameter shape]`."""

    def single(params: Params, example: Batch) -> Array:
        return fn(params, take_example(example))[0]

    return jax.vmap(jax.value_and_grad(single, allow_int=True), in_axes=(None, 0))


def dense_squared_norms(
    fn: LogProbFn,
) -> Callable[[Params, Batch], tuple[Float[Array, " N"], SquaredNorms]]:
    """`squared_norms` from materialised gradients; scanned layers are not split by layer."""

    def run(params: Params, batch: Batch) -> tuple[Array, SquaredNorms]:
        outputs, gradients = per_example_gradients(fn)(params, batch)
        paths, leaves, _ = flatten_with_paths(gradients)
        norms = {
            path: jnp.sum(jnp.square(leaf.reshape(outputs.shape[0], -1)), axis=1)
            for path, leaf in zip(paths, leaves, strict=True)
            if leaf.dtype != jax.dtypes.float0
        }
        return outputs, SquaredNorms(sum(norms.values(), jnp.zeros_like(outputs)), norms)

    return run


def dense_grouped_gram(
    fn: LogProbFn,
) -> Callable[[Params, Batch, Array], tuple[Float[Array, "Q K"], Gram]]:
    """`grouped_gram` from materialised gradients; scanned layers are not split by layer."""

    def run(params: Params, groups: Batch, mask: Array) -> tuple[Array, Gram]:
        q, k = mask.shape
        rows = jax.tree.map(lambda leaf: leaf.reshape(q * k, *leaf.shape[2:]), groups)
        outputs, gradients = per_example_gradients(fn)(params, rows)
        paths, leaves, _ = flatten_with_paths(gradients)
        pair = (mask[:, :, None] & mask[:, None, :]).astype(outputs.dtype)
        grams = {}
        for path, leaf in zip(paths, leaves, strict=True):
            if leaf.dtype == jax.dtypes.float0:
                continue
            flat = leaf.reshape(q, k, -1)
            grams[path] = jnp.einsum("qip,qjp->qij", flat, flat, precision=_HIGHEST) * pair
        total = sum(grams.values(), jnp.zeros((q, k, k), outputs.dtype))
        return outputs.reshape(q, k), Gram(total, grams)

    return run
