r"""What the demo measures on the synthetic world; every choice was made before any result.

Per question c is the chosen answer, E = $\|\nabla p_c\|^2$ epistemic, A = $p_c(1 - p_c)$ aleatoric,
S = $E / A^2$ scale-free, M the maximum probability. All are of the choice-normalised probability
and of the answer the model chose. Correlations are Spearman's, so no transform of exposure or
of a score matters. "X with Y | Z" is the partial correlation: ranks of X and Y after removing
their linear fit on the ranks of Z.

- With **exposure**: on recall and conflict questions together (every cell of the crossed
  design). For two choices E carries a factor $A^2$, so E with exposure proves nothing; the
  questions are E | A, S, and S | A. With two choices M and A order alike, hence no M | A.
- With **conflict** (the minority value's share): the same questions, but exposure at least 1,
  for an unstated fact has no conflict to know. Plain, and given exposure, which moves A too.
- With being **correct**, given A: does E say more about errors than the probability does?
  Negative means that higher uncertainty goes with more errors. On recall and conflict apart.
- **AUROC** of every score predicting correctness, with the sign fixed in `fishjax.scores`.

Each is computed per training seed. Intervals are Student's t over the seeds (n = 5: mean
± 2.776 s/√5): they say how much another training run would differ on the same questions and
gold answers. They do not cover another draw of the world, and no correction is made for
looking at many of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fishjax.metrics import auroc, partial_spearman, spearman
from fishjax.scores import DIRECTIONS
from fishjax.tasks.world_oracle import best_answers, best_possible_auroc, correctness_probability

__all__ = ["MEASURES", "Estimate", "Measure", "Scored", "aurocs", "join", "t_interval"]

# Two-sided 95 % quantile of Student's t, by degrees of freedom.
_T_QUANTILE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646}


class Scored(NamedTuple):
    """One model's answers to N questions, and what the world knows about them.

    Attributes:
      exposure: `[N]` mentions of the fact.
      conflict: `[N]` share of the minority value.
      shares: `[N, K]` chance of each choice being gold.
      gold: `[N]` index of the gold answer.
      chosen: `[N]` index of the model's answer.
      scores: name to `[N]`, of the chosen answer.
    """

    exposure: np.ndarray
    conflict: np.ndarray
    shares: np.ndarray
    gold: np.ndarray
    chosen: np.ndarray
    scores: dict[str, np.ndarray]

    @property
    def correct(self) -> np.ndarray:
        """`[N]` whether the chosen answer is the gold one."""
        return self.chosen == self.gold

    @classmethod
    def from_columns(
        cls, questions: Sequence[Mapping[str, Any]], columns: Mapping[str, np.ndarray]
    ) -> "Scored":
        """Joins the records of a question file with the columns of one model, in file order.

        Raises:
          ValueError: the columns are not as long as the file.
        """
        lengths = {len(column) for column in columns.values()}
        if lengths != {len(questions)}:
            raise ValueError(f"{len(questions)} questions, but columns of length {lengths}")
        return cls(
            exposure=np.array([q["exposure"] for q in questions], np.float64),
            conflict=np.array([q["conflict"] for q in questions], np.float64),
            shares=np.array([q["shares"] for q in questions], np.float64),
            gold=np.array([q["answer"] for q in questions]),
            chosen=np.asarray(columns["chosen"]),
            scores={k: np.asarray(v, np.float64) for k, v in columns.items() if k != "chosen"},
        )


def join(first: Scored, second: Scored) -> Scored:
    """The questions of both, of equally many choices."""
    scores = {k: np.concatenate([v, second.scores[k]]) for k, v in first.scores.items()}
    return Scored(
        exposure=np.concatenate([first.exposure, second.exposure]),
        conflict=np.concatenate([first.conflict, second.conflict]),
        shares=np.concatenate([first.shares, second.shares]),
        gold=np.concatenate([first.gold, second.gold]),
        chosen=np.concatenate([first.chosen, second.chosen]),
        scores=scores,
    )


class Estimate(NamedTuple):
    """Mean over training seeds, its 95 % t interval, and the seeds' values."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


def t_interval(values: Sequence[float | None]) -> Estimate | None:
    """Mean and 95 % interval over 2 to 8 seeds; None if any seed's value is undefined."""
    if any(value is None for value in values) or len(values) - 1 not in _T_QUANTILE:
        return None
    array = np.asarray(values, np.float64)
    half = _T_QUANTILE[len(array) - 1] * array.std(ddof=1) / math.sqrt(len(array))
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, tuple(array.tolist()))


class Measure(NamedTuple):
    """One number of one model.

    Attributes:
      label: how the report calls it.
      questions: `crossed` (recall and conflict), `recall` or `conflict`.
      function: `Scored -> float`, None where undefined.
    """

    label: str
    questions: str
    function: Callable[[Scored], float | None]


def _exposure(name: str, *given: str) -> Callable[[Scored], float | None]:
    """Correlation of a score with exposure, given other scores."""

    def measure(scored: Scored) -> float | None:
        covariates = np.stack([scored.scores[g] for g in given], axis=1) if given else _none(scored)
        return partial_spearman(scored.scores[name], scored.exposure, covariates)

    return measure


def _conflict(name: str) -> Callable[[Scored], float | None]:
    """Correlation of a score with conflict, over stated facts."""

    def measure(scored: Scored) -> float | None:
        stated = scored.exposure > 0
        return spearman(scored.scores[name][stated], scored.conflict[stated])

    return measure


def _conflict_given_exposure(name: str) -> Callable[[Scored], float | None]:
    """The same, given exposure."""

    def measure(scored: Scored) -> float | None:
        stated = scored.exposure > 0
        covariate = scored.exposure[stated][:, None]
        return partial_spearman(scored.scores[name][stated], scored.conflict[stated], covariate)

    return measure


def _none(scored: Scored) -> np.ndarray:
    return np.zeros((len(scored.exposure), 0))


def _with_correct(scored: Scored) -> float | None:
    correct = scored.correct.astype(np.float64)
    covariate = scored.scores["aleatoric"][:, None]
    return partial_spearman(scored.scores["epistemic"], correct, covariate)


MEASURES: dict[str, Measure] = {
    "epistemic_exposure": Measure("epistemic ~ exposure", "crossed", _exposure("epistemic")),
    "epistemic_exposure_given_aleatoric": Measure(
        "epistemic ~ exposure | p(1-p)", "crossed", _exposure("epistemic", "aleatoric")
    ),
    "scale_free_exposure": Measure("scale-free ~ exposure", "crossed", _exposure("scale_free")),
    "scale_free_exposure_given_aleatoric": Measure(
        "scale-free ~ exposure | p(1-p)", "crossed", _exposure("scale_free", "aleatoric")
    ),
    "maximum_probability_exposure": Measure(
        "max. probability ~ exposure", "crossed", _exposure("maximum_probability")
    ),
    "aleatoric_conflict": Measure("aleatoric ~ conflict", "crossed", _conflict("aleatoric")),
    "aleatoric_conflict_given_exposure": Measure(
        "aleatoric ~ conflict | exposure", "crossed", _conflict_given_exposure("aleatoric")
    ),
    "maximum_probability_conflict": Measure(
        "max. probability ~ conflict", "crossed", _conflict("maximum_probability")
    ),
    "maximum_probability_conflict_given_exposure": Measure(
        "max. prob. ~ conflict | exposure",
        "crossed",
        _conflict_given_exposure("maximum_probability"),
    ),
    "epistemic_correct_recall": Measure(
        "epistemic ~ correct | p(1-p), recall", "recall", _with_correct
    ),
    "epistemic_correct_conflict": Measure(
        "epistemic ~ correct | p(1-p), conflict", "conflict", _with_correct
    ),
}
"""Every correlation of the report, by its key in `report.json`."""


def aurocs(scored: Scored) -> dict[str, float | None]:
    """AUROC of predicting correctness: of every score, and of those who know the world.

    `known exposure` ranks by the number of mentions. `best possible` is A(q) of
    `fishjax.tasks.world_oracle` for the answers the model gave, `(realised)` the same oracle
    on the gold answers drawn. `majority answers` is the oracle of a model that always gives
    the majority value; undefined on recall, where such a model makes no error. Questions
    for which a score is undefined are left out for that score.
    """
    correct = scored.correct
    table = {
        name: auroc(DIRECTIONS[name].value * values[known], correct[known])
        for name, values in scored.scores.items()
        for known in [~np.isnan(values)]
    }
    given = correctness_probability(scored.shares, scored.chosen)
    best = best_answers(scored.shares)
    at_best = correctness_probability(scored.shares, best)
    return table | {
        "known exposure": auroc(scored.exposure, correct),
        "best possible": best_possible_auroc(given),
        "best possible (realised)": auroc(given, correct),
        "majority answers": best_possible_auroc(at_best),
        "majority answers (realised)": auroc(at_best, best == scored.gold),
    }
