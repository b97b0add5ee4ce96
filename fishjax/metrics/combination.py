"""Supervised combination of several scores: a cross-validated logistic regression."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fishjax.metrics.logistic import out_of_fold, stratified_folds
from fishjax.metrics.roc import Interval, auroc, auroc_samples, percentile_interval

__all__ = ["Coefficient", "Combination", "combine_scores", "grouped_folds"]


class Coefficient(NamedTuple):
    """What one score adds to the logit when it rises by one standard deviation.

    Attributes:
      mean: over the models of all folds and repeats; 0 for a score that is constant in training.
      spread: standard deviation (n - 1) over them. They share most of their training data, so it
        tells how stable the fit is and is no standard error.
    """

    mean: float
    spread: float


class Combination(NamedTuple):
    """Scores combined with the help of labels, judged on questions the fit has not seen.

    Which question falls into which fold is chance, and moves the AUROC: folds are dealt R times.

    Attributes:
      probabilities: `[N]` out-of-fold probability of "positive" in the first repeat; NaN where a
        score is missing.
      folds: `[N]` the fold each question was held out in, there; -1 where a score is missing.
      num_used: questions with all scores.
      num_missing: questions left out because a score is NaN.
      auroc: of the probabilities, all folds pooled; the mean over the repeats.
      interval: of `auroc`, by bootstrap over questions with the fits as they are: what other
        questions would change. With groups of several questions it is too narrow, since the
        questions of a group vary together. It knows nothing of the folds.
      repeats: `[R]` the AUROC of every repeat.
      spread: their standard deviation (R - 1): what one other deal of the folds would change;
        `None` for one repeat.
      coefficients: by score, on standardised scores.
      supervised: always True: labels went in, unlike in any single score.
    """

    probabilities: Float[np.ndarray, " N"]
    folds: Int[np.ndarray, " N"]
    num_used: int
    num_missing: int
    auroc: float
    interval: Interval
    repeats: Float[np.ndarray, " R"]
    spread: float | None
    coefficients: dict[str, Coefficient]
    supervised: bool = True


def combine_scores(
    scores: Mapping[str, Float[np.ndarray, " M"]],
    positive: Bool[np.ndarray, " N"],
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | np.ndarray | None = None,
    num_folds: int = 5,
    num_repeats: int = 10,
    ridge: float = 1.0,
) -> Combination | None:
    r"""$P(\text{positive}) = \sigma(b + \sum_f w_f z_f)$ of standardised scores $z_f$, out of fold.

    Each fold is predicted by a ridge logistic regression fitted on the others; means and scales
    come from those others too, so nothing leaks. Signs are learned: directions do not matter. Give
    logarithms of scores of wide range.

    A question with a NaN score is left out of everything and counted. A constant score has
    coefficient 0.

    Args:
      scores: name to one value a question (M = N); NaN means missing, infinities are refused.
      positive: the labels, as a rule whether the answer is right.
      rng: deals the folds of every repeat, then draws the bootstrap; the same seed gives the
        same result.
      groups: a key a question (its id, its passage); questions of one group share a fold. None
        makes every question its own group.
      num_folds: number of stratified folds K.
      num_repeats: how often the folds are dealt, R.
      ridge: penalty on standardised weights; 1 equals scikit-learn's `C=1`.

    Returns:
      The combination, or `None` where it is undefined: among the questions used, a class occurs
      in fewer groups than there are folds, or the groups leave a training part with one class.

    Raises:
      ValueError: there is no score, lengths differ, a score is infinite, or there are fewer than
        two folds or less than one repeat.

    References:
      Kohavi (1995), A study of cross-validation and bootstrap for accuracy estimation.
    """
    features = _features(scores, positive, groups)
    if num_folds < 2 or num_repeats < 1:
        raise ValueError(f"num_folds={num_folds}, num_repeats={num_repeats}: expected ≥ 2 and ≥ 1")
    used = np.asarray(~np.isnan(features).any(axis=1))
    numbers = _group_numbers(range(positive.size) if groups is None else groups)[used]
    features, labels = features[used], positive[used]
    if min(np.unique(numbers[labels == c]).size for c in (True, False)) < num_folds:
        return None
    deals = [
        stratified_folds(labels, num_folds, rng)
        if groups is None
        else grouped_folds(labels, numbers, num_folds, rng)
        for _ in range(num_repeats)
    ]
    if any(np.unique(labels[d != fold]).size < 2 for d in deals for fold in range(num_folds)):
        return None
    fitted = [out_of_fold(features, labels, folds, ridge=ridge) for folds in deals]
    logits = np.stack([one.logits for one in fitted])
    areas = np.array([auroc(row, labels) for row in logits], float)
    samples = auroc_samples(logits, labels, rng=rng)
    assert samples is not None  # both classes are there
    weights = np.concatenate([one.weights for one in fitted])
    return Combination(
        probabilities=_placed(0.5 * (1.0 + np.tanh(0.5 * logits[0])), used, np.nan),
        folds=_placed(deals[0], used, -1),
        num_used=int(used.sum()),
        num_missing=int((~used).sum()),
        auroc=float(areas.mean()),
        interval=percentile_interval(samples.mean(axis=0)),
        repeats=areas,
        spread=float(areas.std(ddof=1)) if num_repeats > 1 else None,
        coefficients={
            name: Coefficient(float(column.mean()), float(column.std(ddof=1)))
            for name, column in zip(scores, weights.T, strict=True)
        },
    )


def grouped_folds(
    positive: Bool[np.ndarray, " N"],
    groups: Int[np.ndarray, " N"],
    num_folds: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " N"]:
    r"""A fold in `0 … num_folds - 1` for every example, the same for all of a group.

    Greedy: groups in random order, large ones first, each to the fold that keeps both classes
    most even, that is with the least $\sum_c n_{fc} g_c / n_c^2$ ($n_{fc}$ of class c in the
    fold, $g_c$ in the group, $n_c$ in all), then the fewest examples. Groups of one example are
    dealt out evenly, each class apart.

    Args:
      positive: the labels.
      groups: a number for every example.
      num_folds: number of folds; a fold can stay empty where there are fewer groups.
      rng: shuffles the groups.
    """
    _, members = np.unique(groups, return_inverse=True)
    sizes = np.stack([np.bincount(members, ~positive), np.bincount(members, positive)], axis=1)
    scale = np.maximum(sizes.sum(axis=0), 1.0) ** 2
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled].sum(axis=1), kind="stable")]
    filled, fold_of = np.zeros((num_folds, 2)), np.empty(len(sizes), dtype=np.int64)
    for group in order:
        crowding = filled @ (sizes[group] / scale)
        # lexsort's last key counts most; equal folds are taken in order.
        fold = np.lexsort((filled.sum(axis=1), crowding))[0]
        fold_of[group] = fold
        filled[fold] += sizes[group]
    return fold_of[members]


def _features(
    scores: Mapping[str, np.ndarray],
    positive: np.ndarray,
    groups: Sequence[Hashable] | np.ndarray | None,
) -> np.ndarray:
    if not scores:
        raise ValueError("there is no score to combine")
    lengths = {name: len(values) for name, values in scores.items()}
    if groups is not None:
        lengths["groups"] = len(groups)
    for name, length in lengths.items():
        if length != positive.size:
            raise ValueError(f"{name}: {length} values for {positive.size} labels")
    for name, values in scores.items():
        if infinite := int(np.isinf(values).sum()):
            raise ValueError(
                f"{name}: {infinite} infinite values have no place in a linear model: clip them, "
                "or make them NaN to leave those questions out"
            )
    return np.stack([np.asarray(v, np.float64) for v in scores.values()], axis=1)


def _group_numbers(groups: Sequence[Hashable] | np.ndarray | range) -> np.ndarray:
    """0, 1, … in order of appearance."""
    keys = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def _placed(values: np.ndarray, used: np.ndarray, missing: float | int) -> np.ndarray:
    placed = np.full(used.size, missing, dtype=values.dtype)
    placed[used] = values
    return placed
