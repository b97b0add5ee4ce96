"""From the rows of a run to one number a question and score: what the demo needs of a model."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fishjax.io import score_value
from fishjax.scores import LOGARITHMIC, SCORES

__all__ = ["SCORE_NAMES", "chosen_columns", "rounded_columns"]

SCORE_NAMES = tuple(score.name for score in SCORES if not score.name.startswith("normalised_"))
"""Scores the demo reports. The world's answers are one token each, so that the length-normalised
scores (`normalised_choice_…`, `normalised_sequence_…`) equal those without the prefix."""


def chosen_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """`chosen` and every score of the chosen answer, in row order.

    Scores of wide range are natural logarithms; NaN is undefined.

    Raises:
      ValueError: a row has no answer because the model's numbers were not finite.
    """
    rows = list(rows)
    unanswered = [row["id"] for row in rows if row["chosen"] is None]
    if unanswered:
        raise ValueError(f"{len(unanswered)} questions without an answer, first {unanswered[0]}")
    columns = {
        name: np.array([score_value(row["scores"], name, name in LOGARITHMIC) for row in rows])
        for name in SCORE_NAMES
    }
    return {"chosen": np.array([row["chosen"] for row in rows]), **columns}


def rounded_columns(columns: Mapping[str, np.ndarray], digits: int = 6) -> dict[str, list]:
    """The same as plain JSON lists with `digits` significant digits; undefined is null.

    Raises:
      ValueError: a value is infinite, which JSON cannot state.
    """
    return {name: [_rounded(value, digits) for value in v.tolist()] for name, v in columns.items()}


def _rounded(value: int | float, digits: int) -> int | float | None:
    if isinstance(value, int):
        return value
    if math.isinf(value):
        raise ValueError("a score is infinite and cannot be stored")
    return None if math.isnan(value) else float(f"{value:.{digits}g}")
