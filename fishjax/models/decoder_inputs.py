"""What a decoder is given, checked before it computes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishjax.trees import flatten_with_paths

from .config import DecoderConfig

__all__ = ["check_inputs", "check_params"]


def check_params(params: Any, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError, naming the path, where the shapes are not the expected ones."""
    paths, leaves, _ = flatten_with_paths(params)
    shapes = {path: jnp.shape(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    for path in expected.keys() | shapes.keys():
        if expected.get(path) != shapes.get(path):
            raise ValueError(
                f"parameter {path!r} has shape {shapes.get(path, 'missing')}: expected "
                f"{expected.get(path, 'no such parameter')}; pass params of the same config"
            )


def check_inputs(
    token_ids: Any,
    config: DecoderConfig,
    *,
    positions: Any = None,
    mask: Any = None,
    branches: Any = None,
) -> None:
    """Raises ValueError for wrong shapes and dtypes, and for sequences beyond the context.

    Rows with branches may be longer than the context: what counts is each branch's sequence.
    """
    if jnp.ndim(token_ids) != 2 or not jnp.issubdtype(jnp.result_type(token_ids), jnp.integer):
        raise ValueError(
            f"token_ids has shape {jnp.shape(token_ids)} and dtype {jnp.result_type(token_ids)}: "
            "expected integers of shape [N, T]"
        )
    length = jnp.shape(token_ids)[1]
    if length > config.context_length and branches is None:
        raise ValueError(
            f"sequence of {length} tokens is longer than the context of "
            f"{config.context_length}: truncate it"
        )
    if positions is not None and jnp.ndim(positions) != 2:
        raise ValueError(f"positions has shape {jnp.shape(positions)}: expected [N, A]")
    if branches is not None and mask is not None:
        raise ValueError("branches and a mask: expected one of them, padding behind the branches")
    if branches is not None and (
        jnp.shape(branches) != jnp.shape(token_ids)
        or not jnp.issubdtype(jnp.result_type(branches), jnp.integer)
    ):
        raise ValueError(
            f"branches has shape {jnp.shape(branches)} and dtype {jnp.result_type(branches)}: "
            f"expected integers of shape {jnp.shape(token_ids)}, like token_ids"
        )
    if mask is not None and (
        jnp.shape(mask) != jnp.shape(token_ids) or jnp.result_type(mask) != jnp.bool_
    ):
        raise ValueError(
            f"mask has shape {jnp.shape(mask)} and dtype {jnp.result_type(mask)}: expected "
            f"booleans of shape {jnp.shape(token_ids)}, like token_ids"
        )
    if jax.dtypes.canonicalize_dtype(np.dtype(jnp.dtype(config.dtype))) != jnp.dtype(config.dtype):
        raise ValueError(f"dtype {config.dtype} needs jax_enable_x64: enable it or use float32")
