"""What a decoder is given, checked before it computes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishjax.trees import flatten_with_paths

from .config import DecoderConfig

__all__ = ["check_inputs", "check_params", "check_prefix"]


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
) -> None:
    """Raises ValueError for wrong shapes and dtypes, and for sequences beyond the context."""
    _check_integers("token_ids", token_ids, ("N", "T"))
    _check_length("sequence", token_ids, config)
    if positions is not None and jnp.ndim(positions) != 2:
        raise ValueError(f"positions has shape {jnp.shape(positions)}: expected [N, A]")
    if mask is not None and (
        jnp.shape(mask) != jnp.shape(token_ids) or jnp.result_type(mask) != jnp.bool_
    ):
        raise ValueError(
            f"mask has shape {jnp.shape(mask)} and dtype {jnp.result_type(mask)}: expected "
            f"booleans of shape {jnp.shape(token_ids)}, like token_ids"
        )
    if jax.dtypes.canonicalize_dtype(np.dtype(jnp.dtype(config.dtype))) != jnp.dtype(config.dtype):
        raise ValueError(f"dtype {config.dtype} needs jax_enable_x64: enable it or use float32")


def check_prefix(
    token_ids: Any, prefix: Any, lengths: Any, config: DecoderConfig, others: Mapping[str, Any]
) -> None:
    """Raises ValueError for a prefix that does not fit the rows or stands beside other options."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(f"a prefix and {', '.join(given)}: expected a prefix without them")
    if prefix is None or lengths is None:
        missing = "prefix" if prefix is None else "prefix_lengths"
        raise ValueError(f"{missing} is missing: expected prefix and prefix_lengths together")
    rows = jnp.shape(token_ids)[0]
    _check_integers("prefix", prefix, (rows, "P"))
    _check_integers("prefix_lengths", lengths, (rows,))
    _check_length("prefix", prefix, config)


def _check_integers(name: str, value: Any, expected: tuple[int | str, ...]) -> None:
    """Integers of the expected shape; a letter stands for any size."""
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    fits = len(shape) == len(expected) and all(
        isinstance(e, str) or s == e for s, e in zip(shape, expected, strict=True)
    )
    if not fits or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"{name} has shape {shape} and dtype {dtype}: expected integers of shape "
            f"[{', '.join(map(str, expected))}]"
        )


def _check_length(name: str, token_ids: Any, config: DecoderConfig) -> None:
    length = jnp.shape(token_ids)[1]
    if length > config.context_length:
        raise ValueError(
            f"{name} of {length} tokens is longer than the context of "
            f"{config.context_length}: truncate it"
        )
