"""One value, one text: JSON whose bytes depend on nothing but the value."""

import json
import math
from typing import Any

import numpy as np

__all__ = ["dumps", "float32_number", "linear_number"]


def dumps(value: Any) -> str:
    """JSON with sorted keys, no spaces and ASCII escapes.

    Raises:
      ValueError: a number is NaN or infinite; the caller decides what those become.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def float32_number(value: Any) -> float | None:
    """The float32 nearest to `value` with its shortest digits; `None` if NaN or infinite.

    `0.1` in float32 is written `0.1`, not `0.10000000149011612`.
    """
    rounded = np.float32(value)
    return float(str(rounded)) if np.isfinite(rounded) else None


def linear_number(log_value: float) -> float | None:
    """`exp(log_value)` where float32 holds it as a normal number, else `None`.

    `-inf` is an exact zero and becomes 0.0. So `None` beside a finite logarithm means
    underflow or overflow, and `None` beside `None` means undefined.
    """
    if log_value == -math.inf:
        return 0.0
    limits = np.finfo(np.float32)
    inside = math.log(limits.tiny) <= log_value <= math.log(limits.max)
    return float32_number(np.exp(np.float64(log_value))) if inside else None
