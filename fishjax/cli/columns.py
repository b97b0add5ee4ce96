"""Rows as columns: what metrics and plots need, checked line by line."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fishjax import io
from fishjax.scores import COMPARING, DIRECTIONS, LOGARITHMIC

__all__ = ["Columns", "read_columns"]

_STATUSES = ("ok", "non_finite")


class Columns(NamedTuple):
    """A finished run; n of its N questions have finite values, and only they are below.

    Attributes:
      num_questions: N.
      num_truncated: questions whose prompt was cut, of all N.
      correct: `[n]`.
      correct_norm: `[n]`.
      correct_bytes: `[n]`.
      tied: `[n]`.
      mc2: `[n]` choice probability of the true answers.
      confidence: `[n]` choice probability of the chosen answer.
      probabilities: `[n, K]`, zero where an answer does not exist.
      labels: `[n, K]`, zero where an answer does not exist.
      true_log_probability: `[n]` nats, of all true answers together; `-inf` if there is none.
      scores: name to `[n]`, the chosen answer's; logarithms where the registry says so, NaN
        where undefined. Without those that compare answers where no question has two, as in
        generated answers and text.
      shares: parameter path to `[m]` or `[m, L]`, of the m questions that have them.
    """

    num_questions: int
    num_truncated: int
    correct: np.ndarray
    correct_norm: np.ndarray
    correct_bytes: np.ndarray
    tied: np.ndarray
    mc2: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    true_log_probability: np.ndarray
    scores: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]

    @property
    def compares(self) -> bool:
        """Whether there are scores that compare answers: false where no question has two."""
        return not COMPARING.isdisjoint(self.scores)

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the epistemic and the aleatoric score: of the choice, or of the sequence."""
        prefix = "" if self.compares else "sequence_"
        return f"{prefix}epistemic", f"{prefix}aleatoric"

    def only(self, chosen: np.ndarray) -> "Columns":
        """The questions that `chosen` `[n]` marks, without shares, which not all of them have."""
        arrays = {
            name: v[chosen] for name, v in self._asdict().items() if isinstance(v, np.ndarray)
        }
        scores = {name: column[chosen] for name, column in self.scores.items()}
        return self._replace(**arrays, scores=scores, shares={}, num_questions=int(chosen.sum()))


def read_columns(directory: pathlib.Path, num_questions: int) -> Columns:
    """Reads a finished run's rows.

    Raises:
      RowsError: a row is missing, damaged or not of this schema; names the line.
    """
    placed = _placed_rows(directory, num_questions)
    for pair in placed:
        _checked(lambda row: _object(row.get("metadata", {})), *pair)
    status = [_checked(lambda row: _one_of(row["status"], _STATUSES), *pair) for pair in placed]
    kept = [pair for pair, found in zip(placed, status, strict=True) if found == _STATUSES[0]]

    def column(read: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
        return [_checked(read, row, place) for row, place in kept]

    log_p, labels = column(_log_probabilities), column(_labels)
    alone = all(p.size == 1 for p in log_p)
    names = [n for n in DIRECTIONS if kept and n in kept[0][0].get("scores", {})]
    names = [n for n in names if not (alone and n in COMPARING)]
    chosen = column(lambda row: _index(row["chosen"], len(row["answers"])))
    return Columns(
        num_questions=len(placed),
        num_truncated=sum(_checked(lambda row: _flag(row["truncated"]), *pair) for pair in placed),
        correct=np.array(column(lambda row: _flag(row["correct"])), bool),
        correct_norm=np.array(column(lambda row: _flag(row["correct_norm"])), bool),
        correct_bytes=np.array(column(lambda row: _flag(row["correct_bytes"])), bool),
        tied=np.array(column(lambda row: _flag(row["tied"])), bool),
        mc2=np.array(column(lambda row: float(row["mc2"])), float),
        confidence=np.minimum(np.exp([p[k] for p, k in zip(log_p, chosen, strict=True)]), 1.0),
        probabilities=_padded([np.exp(p) for p in log_p]),
        labels=_padded(labels),
        true_log_probability=np.array(list(map(_true_log_probability, log_p, labels)), float),
        scores={
            name: np.array(column(_score_reader(name)), float) for name in names
        },
        shares=_share_columns([s for s in column(_shares) if s is not None]),
    )  # fmt: skip


def _placed_rows(directory: pathlib.Path, num_questions: int) -> list[tuple[dict[str, Any], str]]:
    """Every row with its place for messages; all of this schema version."""
    path = directory / io.ROWS_NAME
    placed = [
        (row, f"{path}, line {number}")
        for number, row in enumerate(io.read_rows(path, num_questions), start=1)
    ]
    for row, place in placed:
        if row.get("schema_version") != io.SCHEMA_VERSION:
            raise io.RowsError(
                f"{place}: schema version {row.get('schema_version')!r}, this fishjax reads "
                f"{io.SCHEMA_VERSION}"
            )
    return placed


def _checked(read: Callable[[Mapping[str, Any]], Any], row: Mapping[str, Any], place: str) -> Any:
    try:
        return read(row)
    except KeyError as error:
        raise io.RowsError(f"{place}: the row has no {error}") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise io.RowsError(f"{place}: not a row of this schema ({error})") from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r}: expected true or false")
    return value


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r}: expected one of {', '.join(allowed)}")
    return value


def _index(value: Any, count: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise ValueError(f"chosen {value!r}: expected an answer below {count}")
    return value


def _log_probabilities(row: Mapping[str, Any]) -> np.ndarray:
    return np.array([io.score_value(a, "probability", True) for a in row["answers"]], float)


def _labels(row: Mapping[str, Any]) -> np.ndarray:
    labels = np.array(row["labels"], float)
    if labels.shape != (len(row["answers"]),):
        raise ValueError(f"{labels.size} labels for {len(row['answers'])} answers")
    return labels


def _true_log_probability(log_p: np.ndarray, labels: np.ndarray) -> float:
    return float(np.logaddexp.reduce(log_p[labels == 1], initial=-np.inf))


def _score_reader(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: io.score_value(_object(row["scores"]), name, name in LOGARITHMIC)


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r}: expected an object")
    return value


def _shares(row: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    shares = row["by_parameter"]
    if shares is None:
        return None
    return {path: np.array(share, float) for path, share in shares.items()}


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    width = max((row.size for row in rows), default=0)
    return np.array([np.pad(row, (0, width - row.size)) for row in rows]).reshape(len(rows), width)


def _share_columns(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not rows:
        return {}
    return {path: np.stack([row[path] for row in rows]) for path in rows[0]}
