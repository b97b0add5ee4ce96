"""`fishjax evaluate --combine`: several scores as one, with the help of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fishjax import metrics
from fishjax.cli.columns import Columns
from fishjax.cli.errors import InputError
from fishjax.cli.options import COMBINED_SCORES
from fishjax.cli.report import LOG_FLOOR, NUM_FOLDS, NUM_REPEATS, NUM_RESAMPLES
from fishjax.scores import DIRECTIONS, LOGARITHMIC

__all__ = ["combination_line", "measure_combination", "names_to_combine"]

_UNEVEN = "rows that share a question leave the training part of a fold with one class"


def names_to_combine(asked: Sequence[str], columns: Columns) -> list[str]:
    """The scores that are combined: those asked for, or the usual ones that the run has.

    Raises:
      InputError: a name that the run has not, or none is left.
    """
    if unknown := [name for name in asked if name not in columns.scores]:
        known = ", ".join(sorted(columns.scores)) or "none, no question was scored"
        raise InputError(f"--combine {unknown[0]}: the run has no such score: expected {known}")
    if asked:
        return list(dict.fromkeys(asked))
    return [n for n in COMBINED_SCORES if n in columns.scores and _has_values(columns.scores[n])]


def measure_combination(
    columns: Columns, names: Sequence[str], ids: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """A cross-validated logistic regression on several scores, beside the best of them alone.

    All numbers are of the questions that have every score.

    Args:
      columns: of a finished run.
      names: of the scores.
      ids: of the questions in `columns`; rows of one question share a fold.
      seed: of folds and bootstrap.

    Returns:
      Plain JSON values; `auroc` is `None` where it is undefined, and `reason` says why. It is the
      mean of `repeats`, one for each deal of the folds, and `spread` their standard deviation:
      what other folds would change. `interval` is what other questions would change.
    """
    values = {name: _finite(columns.scores[name], name) for name in names}
    missing = {name: np.isnan(column) for name, column in values.items()}
    used = ~np.any([*missing.values(), np.full(columns.correct.shape, not values)], axis=0)
    found, reason = None, _reason(values, columns.correct[used], np.asarray(ids, object)[used])
    if reason is None:
        found = metrics.combine_scores(
            values,
            columns.correct,
            rng=np.random.default_rng(seed),
            groups=ids if len(set(ids)) < len(ids) else None,
            num_folds=NUM_FOLDS,
            num_repeats=NUM_REPEATS,
        )
        reason = _UNEVEN if found is None else None
    best = _best_single(values, columns.correct, used, seed)
    return {
        "supervised": True,
        "method": "logistic regression on standardised scores, out of fold",
        "scores": list(names),
        "auroc": None if found is None else found.auroc,
        "interval": None if found is None else list(found.interval),
        "repeats": None if found is None else found.repeats.tolist(),
        "spread": None if found is None else found.spread,
        "reason": reason,
        "best_single": best,
        "coefficients": None if found is None else _coefficients(found),
        "num_folds": NUM_FOLDS,
        "num_repeats": NUM_REPEATS,
        "fold_sizes": None if found is None else np.bincount(found.folds[used]).tolist(),
        "num_used": int(used.sum()),
        "num_missing": int((~used).sum()),
        "missing": {name: int(where.sum()) for name, where in missing.items()},
    }


def combination_line(combination: Mapping[str, Any]) -> str:
    """What the table does not say, in one line."""
    names = ", ".join(combination["scores"]) or "no scores"
    told = (
        f"supervised, {combination['num_folds']}-fold cross-validated "
        f"{combination['num_repeats']} times"
    )
    if combination["auroc"] is None:
        return f"combination of {names} ({told}): undefined, {combination['reason']}"
    best, left_out = combination["best_single"], combination["num_missing"]
    repeats = combination["repeats"]
    return (
        f"combination of {names} ({told}): AUROC {combination['auroc']:.3f}, by the folds alone "
        f"{min(repeats):.3f} to {max(repeats):.3f} (standard deviation "
        f"{combination['spread']:.3f}), which the interval does not include; best of them alone: "
        f"{best['score']} {best['auroc']:.3f}, on the same {combination['num_used']} questions"
        + (f" ({left_out} left out, a score is missing)" if left_out else "")
    )


def _has_values(column: np.ndarray) -> bool:
    return not np.isnan(column).all()


def _finite(column: np.ndarray, name: str) -> np.ndarray:
    """An exact zero's logarithm counts as the floor, as in every regression here.

    Raises:
      InputError: another infinity.
    """
    column = np.maximum(column, LOG_FLOOR) if name in LOGARITHMIC else column
    if count := int(np.isinf(column).sum()):
        raise InputError(
            f"--combine {name}: {count} values are infinite and have no place in a regression: "
            "leave this score out"
        )
    return column


def _reason(values: Mapping[str, np.ndarray], correct: np.ndarray, ids: np.ndarray) -> str | None:
    """Why there is nothing to fit; `None` where there is."""
    if not values:
        return "the run has none of the usual scores: name some"
    if correct.size == 0:
        return "no question has all of these scores"
    for word, is_right in (("correct", True), ("wrong", False)):
        count = len(set(ids[correct == is_right]))
        if count < NUM_FOLDS:
            return (
                f"{count} of {len(set(ids))} questions have a {word} answer: {NUM_FOLDS} folds "
                f"need at least {NUM_FOLDS}"
            )
    return None


def _best_single(
    values: Mapping[str, np.ndarray], correct: np.ndarray, used: np.ndarray, seed: int
) -> dict[str, Any] | None:
    """The score with the highest AUROC in its fixed direction, which labels choose too."""
    alone = {name: DIRECTIONS[name].value * column[used] for name, column in values.items()}
    areas = {name: metrics.auroc(column, correct[used]) for name, column in alone.items()}
    known = {name: area for name, area in areas.items() if area is not None}
    if not known:
        return None
    name = max(known, key=lambda n: known[n])
    intervals = metrics.auroc_intervals(
        alone[name][None],
        correct[used],
        rng=np.random.default_rng(seed),
        num_resamples=NUM_RESAMPLES,
    )
    interval = None if intervals is None else list(intervals[0])
    return {"score": name, "auroc": known[name], "interval": interval, "supervised": False}


def _coefficients(found: metrics.Combination) -> dict[str, dict[str, float]]:
    return {name: coefficient._asdict() for name, coefficient in found.coefficients.items()}
