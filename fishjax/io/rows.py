"""From the numbers of one question to its row.

A row is plain JSON. A score of wide range is written twice, as `log_<name>` and `<name>`:

| value | `log_<name>` | `<name>` |
|---|---|---|
| in float32's normal range | number | number |
| underflow or overflow | number | null |
| exact zero | null | 0.0 |
| undefined | null | null |
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fishjax.io.canonical import float32_number, linear_number
from fishjax.io.run_directory import SCHEMA_VERSION

__all__ = ["QuestionFacts", "QuestionValues", "build_row", "score_value", "written_score"]


class QuestionFacts(NamedTuple):
    """What is known of a question before the model has seen it.

    Attributes:
      index: its place in the file, from 0.
      id: unique in the run.
      prompt_hash: of the text that is scored.
      truncated: whether the prompt lost its left end.
      labels: one per answer, 1 for a true one.
      num_characters: of each choice without its leading space.
      num_bytes: of each choice without its leading space, in UTF-8.
      num_tokens: of each answer.
      finite: whether what is scored stands on finite numbers; else its row is not finite either.
      metadata: what else the question file says, JSON values; a part of the row of its own, so
        that no name can meet one of ours.
      document_bytes: of a window of text, the bytes that its document's windows score together.
    """

    index: int
    id: str
    prompt_hash: str
    truncated: bool
    labels: tuple[int, ...]
    num_characters: tuple[int, ...]
    num_bytes: tuple[int, ...]
    num_tokens: tuple[int, ...]
    finite: bool = True
    metadata: Mapping[str, Any] = MappingProxyType({})
    document_bytes: int | None = None


class QuestionValues(NamedTuple):
    """What the model gives; arrays over the K answers that exist.

    Attributes:
      log_likelihoods: `[K]` nats.
      log_probabilities: `[K]` nats, choice-normalised.
      finite: whether every number the scores stand on is finite.
      chosen: index of the model's answer.
      tied: whether another answer has the same log-likelihood.
      answer_scores: name to `[K]`.
      question_scores: name to one number.
      shares: parameter path to its share of the chosen answer's squared gradient norm, one
        number or one per layer.
      logarithmic: names whose values are natural logarithms.
    """

    log_likelihoods: np.ndarray
    log_probabilities: np.ndarray
    finite: bool
    chosen: int
    tied: bool
    answer_scores: Mapping[str, np.ndarray]
    question_scores: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    logarithmic: frozenset[str]


def build_row(facts: QuestionFacts, values: QuestionValues) -> dict[str, Any]:
    """The row of one question; pure, deterministic, and without NaN or infinities.

    `correct` says that the chosen answer (highest log-likelihood, lowest index among equals)
    is a true one; `correct_norm` and `correct_bytes` the same for the highest log-likelihood
    per character and per byte; `mc2` is the choice probability of all true answers together.
    Where a log-likelihood or gradient is not finite, `status` is `non_finite` and all of these
    are null.
    """
    values = values._replace(finite=values.finite and facts.finite)
    known = values.finite
    document = {} if facts.document_bytes is None else {"document_bytes": facts.document_bytes}
    return document | {
        "schema_version": SCHEMA_VERSION,
        "index": facts.index,
        "id": facts.id,
        "prompt_hash": facts.prompt_hash,
        "status": "ok" if known else "non_finite",
        "truncated": facts.truncated,
        "labels": list(facts.labels),
        "metadata": dict(facts.metadata),
        "answers": [_answer(facts, values, k) for k in range(len(facts.labels))],
        "chosen": values.chosen if known else None,
        "tied": values.tied if known else None,
        "correct": bool(facts.labels[values.chosen]) if known else None,
        "correct_norm": _correct_per(facts, values, facts.num_characters),
        "correct_bytes": _correct_per(facts, values, facts.num_bytes),
        "mc2": _true_probability(facts, values) if known else None,
        "scores": _chosen_scores(values),
        "by_parameter": _shares(values),
    }


def written_score(name: str, value: float, logarithmic: bool) -> dict[str, float | None]:
    """One score as it stands in a row: one entry, or two for a logarithm."""
    if not logarithmic:
        return {name: float32_number(value)}
    linear = None if math.isnan(value) else linear_number(float(value))
    return {f"log_{name}": float32_number(value), name: linear}


def score_value(written: Mapping[str, Any], name: str, logarithmic: bool) -> float:
    """The inverse of `written_score`: `-inf` for an exact zero, NaN where undefined.

    Raises:
      KeyError: the row has no such score.
      TypeError: it is neither a number nor null.
    """
    value = written[f"log_{name}" if logarithmic else name]
    if value is None and logarithmic and written[name] == 0:
        return -math.inf
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"score {name} is {value!r}: expected a number or null")
    return float(value)


def _answer(facts: QuestionFacts, values: QuestionValues, k: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "log_likelihood": float32_number(values.log_likelihoods[k]),
        "num_tokens": facts.num_tokens[k],
        "num_characters": facts.num_characters[k],
        "num_bytes": facts.num_bytes[k],
        **written_score("probability", float(values.log_probabilities[k]), True),
    }
    for name, column in values.answer_scores.items():
        answer |= written_score(name, float(column[k]), name in values.logarithmic)
    return answer


def _chosen_scores(values: QuestionValues) -> dict[str, float | None]:
    chosen = {name: column[values.chosen] for name, column in values.answer_scores.items()}
    written: dict[str, float | None] = {}
    for name, value in (chosen | dict(values.question_scores)).items():
        number = float(value) if values.finite else math.nan
        written |= written_score(name, number, name in values.logarithmic)
    return written


def _correct_per(
    facts: QuestionFacts, values: QuestionValues, lengths: Sequence[int]
) -> bool | None:
    if not values.finite:
        return None
    per_unit = values.log_likelihoods.astype(np.float64) / np.maximum(lengths, 1)
    return bool(facts.labels[int(np.argmax(per_unit))])


def _true_probability(facts: QuestionFacts, values: QuestionValues) -> float | None:
    log_p = values.log_probabilities.astype(np.float64)
    true = log_p[np.array(facts.labels) == 1]
    return float32_number(np.exp(np.logaddexp.reduce(true))) if true.size else 0.0


def _shares(values: QuestionValues) -> dict[str, Any] | None:
    """Null where the chosen answer has no gradient (or none that is finite)."""
    arrays = {path: np.asarray(share) for path, share in values.shares.items()}
    if not values.finite or not all(np.isfinite(share).all() for share in arrays.values()):
        return None
    return {
        path: [float32_number(layer) for layer in share] if share.ndim else float32_number(share)
        for path, share in arrays.items()
    }
