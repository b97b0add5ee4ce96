"""Rotary position embeddings and the ways to stretch them over longer contexts."""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Float

__all__ = ["Rotary"]


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary positions: pair i turns by `position * frequency_i`.

    Attributes:
      theta: base of the frequencies.
      kind: "default", "linear" (positions divided by factor), "llama3" (low frequencies divided)
        or "yarn" (frequencies and temperature). What depends on the length of the sequence
        ("dynamic") is left out: padding would change logits.
      factor: by how much the context is stretched.
      original_length: context the model was trained with; for llama3 and yarn.
      low: "llama3": wavelengths above `original_length / low` are divided in full;
        "yarn": number of turns below which they are (`beta_slow`).
      high: "llama3": wavelengths below `original_length / high` are kept;
        "yarn": number of turns above which they are (`beta_fast`).
      scale: "yarn": what cosine and sine are multiplied by, None for `0.1 log(factor) + 1`.
      truncate: "yarn": whether the borders of the ramp are whole pairs.
      fraction: of the head's features that turn; the rest stays.
      interleaved: pairs are (2i, 2i+1), as in llama2.c; otherwise (i, i + half), as in Hugging
        Face's checkpoints, which differ by a permutation of the features.

    References:
      Su et al. (2021), arXiv 2104.09864; Peng et al. (2023), arXiv 2309.00071 (yarn).
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0
    original_length: int | None = None
    low: float = 1.0
    high: float = 4.0
    scale: float | None = None
    truncate: bool = True
    fraction: float = 1.0
    interleaved: bool = True

    def check(self, head_width: int) -> None:
        """Raises ValueError where a number is out of range or the features do not pair up."""
        if self.kind not in ("default", "linear", "llama3", "yarn"):
            raise ValueError(f"rotary kind is {self.kind!r}: expected a known kind")
        for name in ("theta", "factor", "low", "high", "fraction"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"rotary {name} is {value!r}: expected a positive finite number")
        if self.kind in ("llama3", "yarn") and not self.original_length:
            raise ValueError(f"rotary kind {self.kind} needs original_length")
        if self.kind == "llama3" and not self.high > self.low:
            raise ValueError(
                f"rotary high is {self.high} and low {self.low}: expected high above low, as "
                "high_freq_factor 4 and low_freq_factor 1"
            )
        if self.kind == "yarn" and self.theta <= 1:
            raise ValueError(f"rotary theta is {self.theta}: yarn needs one above 1")
        size = self.rotated(head_width)
        if size % 2 or not 0 < size <= head_width:
            raise ValueError(
                f"{size} of the {head_width} features of a head turn: RoPE rotates pairs, so it "
                f"must be even and between 2 and {head_width}"
            )

    def rotated(self, head_width: int) -> int:
        """How many features of a head turn."""
        return int(head_width * self.fraction)

    def frequencies(self, head_width: int) -> Float[np.ndarray, " half"]:
        """Radians per position of every pair, in float64."""
        size = self.rotated(head_width)
        exponents = np.arange(0, size, 2, dtype=np.float64) / size
        plain = self.theta**-exponents
        if self.kind == "linear":
            return plain / self.factor
        if self.kind == "llama3":
            return plain * _between(
                _ramp(2 * np.pi / plain, self._wavelength(self.low), self._wavelength(self.high)),
                1 / self.factor,
            )
        if self.kind == "yarn":
            return plain * _between(self._kept_by_yarn(size), 1 / self.factor)
        return plain

    @property
    def magnitude(self) -> float:
        """What cosine and sine are multiplied by."""
        if self.kind != "yarn":
            return 1.0
        if self.scale is not None:
            return self.scale
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def tables(
        self, head_width: int, length: int
    ) -> tuple[Float[np.ndarray, "T half"], Float[np.ndarray, "T half"]]:
        """Cosine and sine of every pair at positions 0 .. length - 1, in float64."""
        positions = np.arange(length, dtype=np.float64)
        angles = positions[:, None] * self.frequencies(head_width)
        return self.magnitude * np.cos(angles), self.magnitude * np.sin(angles)

    def _wavelength(self, factor: float) -> float:
        """Where llama3 begins (low) and ends (high) to keep frequencies, smoothly in 1 / length."""
        assert self.original_length is not None
        return self.original_length / factor

    def _kept_by_yarn(self, size: int) -> np.ndarray:
        """1 for pairs that turn more than `high` times in the original context, 0 below `low`."""
        assert self.original_length is not None

        def pair(turns: float) -> float:
            assert self.original_length is not None
            ratio = self.original_length / (turns * 2 * math.pi)
            return size * math.log(ratio) / (2 * math.log(self.theta))

        first, last = pair(self.high), pair(self.low)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        last = last + 0.001 if first == last else last
        return 1 - np.clip((np.arange(size // 2) - first) / (last - first), 0, 1)


def _ramp(lengths: np.ndarray, longest: float, shortest: float) -> np.ndarray:
    """0 at wavelengths above `longest`, 1 below `shortest`, linear in frequency between."""
    between = (longest / lengths - 1) / (longest / shortest - 1)
    return np.clip(between, 0, 1)


def _between(kept: np.ndarray, other: float) -> np.ndarray:
    """1 where kept, `other` where not."""
    return kept + (1 - kept) * other
