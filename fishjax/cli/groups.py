"""`fishjax evaluate --by`: metrics of groups of questions, by what their file says about them.

An AUROC over groups of different difficulty compares the groups as well as the answers; within
a group it does not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from fishjax import metrics
from fishjax.cli.columns import Columns
from fishjax.cli.errors import InputError
from fishjax.cli.report import score_areas

__all__ = ["groups_table", "measure_groups"]

QUANTILES = (0.25, 0.5, 0.75)
MOST_VALUES = 10  # a number with more distinct values than this is cut at its quartiles
FEWEST = 5  # of a class: below, resampling a class says little about the next questions
_BESIDE = ("maximum_probability", "semantic_entropy", "perplexity")  # the first that a run has


class _Group(NamedTuple):
    """Questions that share a value, or lie between two.

    Attributes:
      facts: what names it in `metrics.json`.
      members: `[N]` of all questions.
    """

    facts: dict[str, Any]
    members: np.ndarray


def measure_groups(
    columns: Columns, rows: Sequence[Mapping[str, Any]], field: str, *, seed: int
) -> dict[str, Any]:
    """Counts, accuracy and AUROCs of every group.

    Args:
      columns: of a finished run.
      rows: all of them, those that are not finite too.
      field: of the rows' `metadata`; a dot goes into an object.
      seed: of the bootstrap.

    Returns:
      Plain JSON values. `groups` are in the order of their values, those without one last. A
      group's `note` says why an AUROC or its interval is `None`.

    Raises:
      InputError: no row has the field, or it is a list or an object.
    """
    values = [_value(row, field) for row in rows]
    if all(value is None for value in values):
        known = sorted({name for row in rows for name in _names(row.get("metadata", {}))})
        expected = f"expected {', '.join(known)}" if known else "its rows have no metadata at all"
        raise InputError(f"--by {field}: no question of the run has such a field: {expected}")
    numbers = [None if value is None else _number(value) for value in values]
    is_number = all(n is not None for n, v in zip(numbers, values, strict=True) if v is not None)
    cut = is_number and len({n for n in numbers if n is not None}) > MOST_VALUES
    groups = _quantiles(numbers) if cut else _by_value(values, is_number)
    missing = np.array([value is None for value in values])
    if missing.any():
        groups.append(_Group({"value": None}, missing))
    finite = np.array([row["status"] == "ok" for row in rows])
    return {
        "kind": "quantiles" if cut else "values",
        "fewest_for_an_interval": FEWEST,
        "groups": [_measure(columns, finite, group, seed) for group in groups],
    }


def groups_table(field: str, found: Mapping[str, Any], columns: Columns) -> Table:
    """A line a group: how many, how many right, and how well two scores tell."""
    others = [name for name in _BESIDE if name in columns.scores]
    shown = [name for name in (columns.pair[0], *others[:1]) if name in columns.scores]
    table = Table(
        title=f"by {field}: AUROC [95 % interval] of predicting a correct answer".replace(
            "[", "\\["
        ),
        caption=f"no interval below {FEWEST} answers of a class; all scores are in metrics.json",
    )
    for name in (field, "questions", "accuracy", *shown, "too few"):
        left = name in (field, "too few")
        table.add_column(name.replace("_", " "), justify="left" if left else "right")
    for group in found["groups"]:
        accuracy = "–" if group["accuracy"] is None else f"{group['accuracy']:.3f}"
        areas = [_written(group["scores"][name]) for name in shown]
        note = (group["note"] or "").split(":")[0]
        cells = (_name(group), str(group["num_questions"]), accuracy, *areas, note)
        table.add_row(*map(escape, cells))
    return table


def _measure(columns: Columns, finite: np.ndarray, group: _Group, seed: int) -> dict[str, Any]:
    chosen = columns.only(group.members[finite])
    correct = chosen.correct
    count, right = int(group.members.sum()), int(correct.sum())
    return group.facts | {
        "num_questions": count,
        "num_scored": int(correct.size),
        "num_non_finite": count - int(correct.size),
        "class_balance": {"correct": right, "incorrect": int(correct.size) - right},
        "accuracy": metrics.accuracy(correct),
        "scores": score_areas(chosen, seed=seed, fewest=FEWEST),
        "note": _note(right, int(correct.size) - right),
    }


def _note(right: int, wrong: int) -> str | None:
    count, word = min((wrong, "wrong"), (right, "correct"))
    if count >= FEWEST:
        return None
    if count == 0:
        return f"no {word} answer: no AUROC"
    return f"{count} {word} answer{'s' * (count > 1)}: no interval below {FEWEST}"


def _value(row: Mapping[str, Any], field: str) -> str | int | float | bool | None:
    """Of one question; `None` without the field.

    Raises:
      InputError: neither text nor a number.
    """
    value = _lookup(row.get("metadata", {}), field)
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    raise InputError(
        f"--by {field}: question {row['id']!r} has {type(value).__name__} there: expected text, a "
        "number, or true and false"
    )


def _lookup(metadata: Any, field: str) -> Any:
    """A field of this very name comes before one inside an object."""
    if not isinstance(metadata, Mapping):
        return None
    if field in metadata:
        return metadata[field]
    head, dot, rest = field.partition(".")
    return _lookup(metadata.get(head), rest) if dot else None


def _names(metadata: Any, prefix: str = "") -> list[str]:
    if not isinstance(metadata, Mapping):
        return [prefix]
    inside = (f"{prefix}.{name}" if prefix else name for name in metadata)
    return [n for name, v in zip(inside, metadata.values(), strict=True) for n in _names(v, name)]


def _number(value: str | int | float | bool) -> float | None:
    """Numbers, also written as text as in csv files; true and false are none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _by_value(values: Sequence[Any], is_number: bool) -> list[_Group]:
    written = [None if value is None else _text(value) for value in values]
    order = float if is_number else str
    names = sorted({text for text in written if text is not None}, key=order)
    return [_Group({"value": n}, np.array([text == n for text in written])) for n in names]


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quantiles(numbers: Sequence[float | None]) -> list[_Group]:
    """Bins `(low, high]` between the quartiles; equal numbers stay together."""
    column = np.array([math.nan if number is None else number for number in numbers])
    edges = np.unique(np.quantile(column[~np.isnan(column)], QUANTILES))
    places = np.where(np.isnan(column), -1, np.searchsorted(edges, column, side="left"))
    groups = []
    for place in range(edges.size + 1):
        members = places == place
        if members.any():
            low, high = float(column[members].min()), float(column[members].max())
            groups.append(_Group({"low": low, "high": high}, members))
    return groups


def _name(group: Mapping[str, Any]) -> str:
    if "low" in group:
        return f"{_short(group['low'])} to {_short(group['high'])}"
    return "(none)" if group["value"] is None else group["value"]


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:.6g}"


def _written(entry: Mapping[str, Any]) -> str:
    if entry["auroc"] is None:
        return "–"
    if entry["interval"] is None:
        return f"{entry['auroc']:.2f}"
    low, high = entry["interval"]
    return f"{entry['auroc']:.2f} [{low:.2f}, {high:.2f}]"
