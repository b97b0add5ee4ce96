"""Operators and estimator states as JSON with numbered arrays: no pickle, known types only."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from fishjax import operators
from fishjax.estimators.base import State
from fishjax.estimators.kpsvd import KpsvdBlock
from fishjax.estimators.moments import Moments
from fishjax.estimators.pairs import Pair
from fishjax.estimators.rearranged import Probe
from fishjax.estimators.solvers import Memory
from fishjax.io.errors import RowsError

__all__ = ["decode", "encode"]

_OPERATORS = tuple(
    kind
    for _, kind in inspect.getmembers(operators, inspect.isclass)
    if issubclass(kind, operators.Operator) and dataclasses.is_dataclass(kind)
)
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *_OPERATORS, operators.DenseLeaf, State, KpsvdBlock, Moments, Pair, Probe, Memory,
    )
}  # fmt: skip


def encode(tree: Any) -> tuple[Any, dict[str, Any]]:
    """`(JSON, arrays by number)` of a tree of dicts, tuples, lists, known types and arrays.

    Raises:
      TypeError: a value of another type.
    """
    arrays: dict[str, Any] = {}

    def walk(value: Any) -> Any:
        name = type(value).__name__
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            if 0 in value.shape:  # Orbax stores none
                return {"zeros": [list(value.shape), value.dtype.name]}
            arrays[str(len(arrays))] = value
            return {"array": str(len(arrays) - 1)}
        if _TYPES.get(name) is type(value):
            fields = {field: walk(getattr(value, field)) for field in _fields(type(value))}
            return {"type": name, "fields": fields}
        if isinstance(value, dict):
            return {"dict": [[key, walk(item)] for key, item in value.items()]}
        if type(value) in (tuple, list):
            return {"tuple" if isinstance(value, tuple) else "list": [walk(v) for v in value]}
        raise TypeError(f"{name} cannot be stored: expected arrays, containers or fishjax's types")

    return walk(tree), arrays


def decode(structure: Any, arrays: dict[str, Any]) -> Any:
    """The inverse of `encode`; nothing is executed, unknown types are refused.

    Raises:
      RowsError: the structure is not one that `encode` writes.
    """

    def walk(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        (key,) = value.keys() - {"fields"} or ("",)
        content = value[key]
        if key == "array":
            return arrays[content]
        if key == "zeros":
            return jnp.zeros(*content)
        if key == "type":
            kind = _TYPES[content]
            return _built(kind, {name: walk(v) for name, v in value["fields"].items()})
        if key == "dict":
            return {name: walk(item) for name, item in content}
        return {"tuple": tuple, "list": list}[key](walk(item) for item in content)

    try:
        return walk(structure)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RowsError(
            f"the stored structure is damaged or of another version: {error!r}"
        ) from None


def _fields(kind: Any) -> Sequence[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return kind._fields


def _built(kind: Any, fields: dict[str, Any]) -> Any:
    """Without the constructor's checks, as JAX rebuilds pytrees."""
    if set(fields) != set(_fields(kind)):
        raise ValueError(f"{kind.__name__} has fields {sorted(_fields(kind))}")
    if not dataclasses.is_dataclass(kind):
        return kind(**fields)
    plain: Any = kind
    value = object.__new__(plain)
    for name, field in fields.items():
        object.__setattr__(value, name, field)
    return value
