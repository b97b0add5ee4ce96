"""The demo's numbers against scipy and scikit-learn, and its sentences against its numbers."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from fishjax.cli.demo_columns import SCORE_NAMES, rounded_columns
from fishjax.cli.demo_plot import cell_means, save_heat_maps
from fishjax.cli.demo_report import compute_report, conclusions
from fishjax.cli.demo_statistics import MEASURES, Estimate, Scored, aurocs, join, t_interval


def _scored(seed: int, num_choices: int, *, contested: bool) -> Scored:
    rng = np.random.default_rng([seed, num_choices, contested])
    n = 160
    minority = rng.choice([0.1, 0.3, 0.5], n) if contested else np.zeros(n)
    shares = np.zeros((n, num_choices))
    shares[:, 0], shares[:, 1] = 1 - minority, minority
    exposure = rng.choice([0.0, 1, 4, 64], n)
    log_aleatoric = np.log(rng.uniform(0.01, 0.25, n))
    scores = {name: rng.normal(size=n) for name in SCORE_NAMES}
    scores |= {
        "aleatoric": log_aleatoric,
        "epistemic": 2 * log_aleatoric - np.log1p(exposure) + 0.1 * rng.normal(size=n),
    }
    scores["scale_free"] = scores["epistemic"] - 2 * log_aleatoric
    gold = (rng.random(n) < minority).astype(int)
    return Scored(exposure, minority, shares, gold, rng.integers(0, 2, n), scores)


def _seeds():
    return [
        {
            f"{kind}_{choices}": _scored(seed, choices, contested=kind == "conflict")
            for kind in ("recall", "conflict")
            for choices in (2, 4)
        }
        for seed in range(5)
    ]


def _partial(x, y, z):
    """First-order partial correlation of ranks, from the three pairwise correlations."""
    xy, xz, yz = (scipy.stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


def test_measures_equal_scipy():
    s = join(_scored(0, 2, contested=False), _scored(0, 2, contested=True))
    known = s.exposure > 0
    expected = {
        "epistemic_exposure": scipy.stats.spearmanr(s.scores["epistemic"], s.exposure).statistic,
        "epistemic_exposure_given_aleatoric": _partial(
            s.scores["epistemic"], s.exposure, s.scores["aleatoric"]
        ),
        "scale_free_exposure_given_aleatoric": _partial(
            s.scores["scale_free"], s.exposure, s.scores["aleatoric"]
        ),
        "aleatoric_conflict": scipy.stats.spearmanr(
            s.scores["aleatoric"][known], s.conflict[known]
        ).statistic,
        "maximum_probability_conflict_given_exposure": _partial(
            s.scores["maximum_probability"][known], s.conflict[known], s.exposure[known]
        ),
        "epistemic_correct_conflict": _partial(
            s.scores["epistemic"], s.correct.astype(float), s.scores["aleatoric"]
        ),
    }
    for key, value in expected.items():
        assert MEASURES[key].function(s) == pytest.approx(value, abs=1e-10), key


def test_aurocs_equal_scikit_learn_with_the_signs_of_the_registry():
    s = _scored(1, 2, contested=True)
    table = aurocs(s)
    auc = sklearn.metrics.roc_auc_score
    assert table["epistemic"] == pytest.approx(auc(s.correct, -s.scores["epistemic"]))
    assert table["maximum_probability"] == pytest.approx(
        auc(s.correct, s.scores["maximum_probability"])
    )
    q = s.shares[np.arange(len(s.gold)), s.chosen]
    assert table["best possible (realised)"] == pytest.approx(auc(s.correct, q))
    best = s.gold == 0
    realised = table["majority answers (realised)"]
    assert realised == pytest.approx(auc(best, s.shares.max(axis=1)))


def test_undefined_scores_are_left_out():
    s = _scored(2, 2, contested=True)
    values = s.scores["epistemic"].copy()
    values[:10] = np.nan
    partly = s._replace(scores={"epistemic": values})
    expected = sklearn.metrics.roc_auc_score(s.correct[10:], -values[10:])
    assert aurocs(partly)["epistemic"] == pytest.approx(expected)


def test_t_interval_equals_scipy():
    values = [0.3, 0.35, 0.2, 0.4, 0.31]
    estimate = t_interval(values)
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert estimate is not None
    np.testing.assert_allclose(estimate[:3], [np.mean(values), low, high], rtol=1e-4)
    assert t_interval([0.3, None, 0.2]) is None
    assert t_interval([0.3]) is None


def test_the_planted_dependence_is_found_and_said():
    report = compute_report(_seeds())
    for choices in ("2", "4"):
        estimate = report[choices]["measures"]["epistemic_exposure_given_aleatoric"]
        assert estimate.high < 0
    sentences = conclusions(report)
    assert "facts stated more often have lower epistemic uncertainty" in sentences[0]


def _report_with(recall: Estimate | None, conflict: Estimate | None) -> dict:
    report = compute_report(_seeds())
    report["2"]["measures"]["epistemic_correct_recall"] = recall
    report["2"]["measures"]["epistemic_correct_conflict"] = conflict
    return report


NEGATIVE = Estimate(-0.2, -0.3, -0.1, ())
UNCLEAR = Estimate(-0.1, -0.3, 0.1, ())
POSITIVE = Estimate(0.2, 0.1, 0.3, ())


@pytest.mark.parametrize(
    ("recall", "conflict", "verdict"),
    [
        (UNCLEAR, NEGATIVE, ": supported."),
        (POSITIVE, NEGATIVE, ": supported."),
        (NEGATIVE, NEGATIVE, ": half supported, "),
        (NEGATIVE, UNCLEAR, ": not supported, "),
        (UNCLEAR, POSITIVE, ": not supported, "),
        (None, NEGATIVE, ": cannot be judged."),
    ],
)
def test_the_verdict_follows_the_intervals(recall, conflict, verdict):
    sentences = conclusions(_report_with(recall, conflict))
    (sentence,) = [s for s in sentences if s.startswith("2 choices, errors, beyond p(1-p)")]
    assert verdict in sentence
    assert ("points the wrong way" in sentence) == (POSITIVE in (recall, conflict))


def test_cell_means_by_hand():
    s = _scored(3, 2, contested=True)._replace(
        exposure=np.array([0.0, 0, 4, 4]), conflict=np.array([0.1, 0.1, 0.1, 0.5])
    )
    means, conflicts, exposures = cell_means(s, np.array([1.0, 3.0, 5.0, 7.0]))
    np.testing.assert_array_equal(conflicts, [0.1, 0.5])
    np.testing.assert_array_equal(exposures, [0, 4])
    np.testing.assert_array_equal(means, [[2.0, 5.0], [np.nan, 7.0]])


def test_heat_maps_are_written(tmp_path):
    save_heat_maps(_seeds(), tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_columns_must_be_as_long_as_the_questions():
    with pytest.raises(ValueError, match="1 questions, but columns"):
        Scored.from_columns([{"exposure": 1}], {"chosen": np.array([0, 1])})


def test_stored_columns_are_plain_numbers():
    columns = {"chosen": np.array([1, 0]), "epistemic": np.array([-1.23456789, np.nan])}
    assert rounded_columns(columns) == {"chosen": [1, 0], "epistemic": [-1.23457, None]}
    with pytest.raises(ValueError, match="infinite"):
        rounded_columns({"epistemic": np.array([-np.inf])})
