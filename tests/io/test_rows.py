"""The row of one question, as a pure function."""

import json
import math

import numpy as np
import pytest

from fishjax import io


def row(**changes):
    facts = io.QuestionFacts(
        index=3,
        id="q\ud800é",
        prompt_hash="ab",
        truncated=False,
        labels=changes.pop("labels", (0, 1, 1)),
        num_characters=(2, 4, 1),
        num_bytes=(2, 40, 1),
        num_tokens=(1, 2, 3),
    )
    log_likelihoods = np.float32([-2.0, -2.5, -3.0])
    values = io.QuestionValues(
        log_likelihoods=log_likelihoods,
        log_probabilities=log_likelihoods - np.float32(np.logaddexp.reduce(log_likelihoods)),
        finite=True,
        chosen=0,
        tied=False,
        answer_scores={"epistemic": np.float32([-1.0, -2000.0, -np.inf])},
        question_scores={"choice_entropy": np.float32(0.5)},
        shares={"layers/w": np.float32([0.25, 0.5]), "head": np.float32(0.25)},
        logarithmic=frozenset({"epistemic"}),
    )
    return io.build_row(facts, values._replace(**changes))


def test_correctness_by_sum_by_character_and_by_byte():
    built = row()
    # Sums: -2, -2.5, -3. Per character: -1, -0.625, -3. Per byte: -1, -0.0625, -3.
    assert built["correct"] is False
    assert built["correct_norm"] is True
    assert built["correct_bytes"] is True
    assert row(labels=(1, 0, 0))["correct_norm"] is False


def test_mc2_is_the_probability_of_all_true_answers():
    p = np.exp([-2.0, -2.5, -3.0])
    assert row()["mc2"] == pytest.approx((p[1] + p[2]) / p.sum(), rel=1e-6)
    assert row(labels=(0, 0, 0))["mc2"] == 0.0


def test_scores_of_the_chosen_answer_and_of_every_answer():
    built = row()
    assert built["scores"]["log_epistemic"] == -1.0
    assert built["scores"]["choice_entropy"] == 0.5
    assert [a["log_epistemic"] for a in built["answers"]] == [-1.0, -2000.0, None]
    assert [a["epistemic"] for a in built["answers"]][1:] == [None, 0.0]
    assert built["answers"][0]["log_likelihood"] == -2.0


def test_shares_keep_their_layers():
    assert row()["by_parameter"] == {"layers/w": [0.25, 0.5], "head": 0.25}
    assert row(shares={"head": np.float32(np.nan)})["by_parameter"] is None


def test_a_question_that_is_not_finite_says_so_and_is_valid_json():
    built = row(
        finite=False,
        log_likelihoods=np.float32([np.nan, -1.0, np.inf]),
        log_probabilities=np.float32([np.nan] * 3),
        answer_scores={"epistemic": np.float32([np.nan] * 3)},
    )
    assert built["status"] == "non_finite"
    for name in ("chosen", "correct", "correct_norm", "correct_bytes", "mc2", "by_parameter"):
        assert built[name] is None
    assert set(built["scores"].values()) == {None}
    assert [a["log_likelihood"] for a in built["answers"]] == [None, -1.0, None]
    assert json.loads(io.dumps(built)) == built


def test_every_row_is_strict_json_whatever_the_numbers():
    for value in (math.nan, math.inf, -math.inf, 0.0, 88.8, -1e30):
        built = row(answer_scores={"epistemic": np.float32([value] * 3)})
        assert json.loads(io.dumps(built)) == built
