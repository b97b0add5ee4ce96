"""Reads `config.json` key by key, so that no key is ever ignored in silence."""

import math
from collections.abc import Mapping
from typing import Any

from .errors import CheckpointError

__all__ = ["ConfigKeys"]

_MISSING = object()


class ConfigKeys:
    """The keys of one JSON object, and which of them were asked for.

    Args:
      values: the object.
      name: of the file or the part of it, for errors.
    """

    def __init__(self, values: Mapping[str, Any], name: str):
        self._values = dict(values)
        self._name = name
        self.used: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is."""
        self.used.add(key)
        return self._values.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._values.get(key) is not None

    def integer(self, key: str, default: Any = _MISSING, most: int = 2**31 - 1) -> int:
        """A positive integer, at most `most`.

        Raises:
          CheckpointError: missing without a default, or something else.
        """
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.unusable(key, "a positive integer")
        if value > most:
            raise self.unusable(key, f"an integer of at most {most}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A positive finite number.

        Raises:
          CheckpointError: missing without a default, or something else.
        """
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.unusable(key, "a positive number")
        if not (math.isfinite(value) and value > 0):
            raise self.unusable(key, "a positive number")
        return float(value)

    def optional(self, key: str, default: float | None = None) -> float | None:
        """A positive finite number or None; `default` where the key is not there."""
        self.used.add(key)
        if key not in self._values:
            return default
        return self.number(key) if self.has(key) else None

    def flag(self, key: str, default: bool) -> bool:
        """True or false.

        Raises:
          CheckpointError: something else.
        """
        value = self._required(key, default)
        if not isinstance(value, bool):
            raise self.unusable(key, "true or false")
        return value

    def choice(self, key: str, choices: Mapping[str, str], default: Any = _MISSING) -> str:
        """What the value stands for.

        Raises:
          CheckpointError: the value is not one of the choices.
        """
        value = self._required(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.unusable(key, f"one of {', '.join(choices)}")
        return choices[value]

    def fixed(self, key: str, *expected: Any) -> None:
        """Accepts only values under which the architecture is what we compute.

        Raises:
          CheckpointError: another value.
        """
        self.used.add(key)
        value = self._values.get(key, expected[0])
        if not any(value == e and type(value) is type(e) for e in expected):
            raise self.unusable(key, f"{expected[0]!r}; other values are not supported")

    def same(self, key: str, value: float, expected: str) -> None:
        """Accepts a number that says once more what another key says, or nothing.

        Raises:
          CheckpointError: another number.
        """
        self.used.add(key)
        if self.has(key) and self.number(key) != value:
            raise self.unusable(key, f"{value}, {expected}")

    def refuse_others(self, ignorable: frozenset[str]) -> None:
        """Raises CheckpointError where a key was neither asked for nor is ignorable."""
        unknown = sorted(self._values.keys() - self.used - ignorable)
        if unknown:
            raise CheckpointError(
                f"{self._name} has keys that this version does not know: {', '.join(unknown)}; "
                "they could change what the model computes, so it is not loaded"
            )

    def unusable(self, key: str, expected: str) -> CheckpointError:
        """The error of a value that cannot be used."""
        return CheckpointError(
            f"{self._name}: {key} is {self._values.get(key)!r}: expected {expected}"
        )

    def _required(self, key: str, default: Any) -> Any:
        self.used.add(key)
        value = self._values.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            raise CheckpointError(f"{self._name} lacks {key}: it is needed to build the model")
        return default
