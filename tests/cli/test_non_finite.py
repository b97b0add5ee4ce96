"""A question whose numbers overflow is marked and left out; the run goes on."""

import json
import string

import jax
import numpy as np
import pytest

from fishjax import io
from fishjax.cli import main
from fishjax.cli.columns import read_columns
from fishjax.cli.report import measure
from fishjax.cli.score import batch_rows
from fishjax.cli.step import StepOutputs
from fishjax.io.checkpoints import load_tree
from fishjax.scores import SCORES
from fishjax.tasks import BatchPlan

from .stages import words_of, write_open_questions


def outputs(log_likelihoods, finite):
    log_likelihoods = np.float32(log_likelihoods)
    shape = log_likelihoods.shape
    with np.errstate(invalid="ignore"):
        total = np.logaddexp.reduce(log_likelihoods, axis=1, keepdims=True)
    value = np.where(finite[:, None], log_likelihoods, np.nan)
    return StepOutputs(
        log_likelihoods=log_likelihoods,
        log_probabilities=log_likelihoods - total,
        finite=finite,
        chosen=np.argmax(log_likelihoods, axis=1),
        tied=np.zeros(shape[0], bool),
        scores={score.name: value for score in SCORES},
        token_scores={},
        token_values={},
        shares={"head": np.ones(shape[0], np.float32)},
    )


def facts(index):
    return io.QuestionFacts(index, f"q{index}", "h", False, (1, 0), (1, 1), (1, 1), (1, 1))


def test_a_non_finite_question_is_counted_and_left_out(tmp_path):
    rng = np.random.default_rng(0)
    log_likelihoods = -rng.exponential(size=(20, 2))
    log_likelihoods[7, 0] = np.nan
    finite = np.isfinite(log_likelihoods).all(axis=1)
    batch = BatchPlan(np.r_[np.arange(20), -1], {}, np.ones((21, 2), bool))
    padded = outputs(np.r_[log_likelihoods, [[np.nan, np.nan]]], np.r_[finite, False])
    rows = batch_rows([facts(i) for i in range(20)], batch, padded)
    assert [row["status"] for row in rows].count("non_finite") == 1
    assert len(rows) == 20
    io.append_batch(tmp_path / "rows.jsonl", rows)
    metrics = measure(read_columns(tmp_path, 20), seed=0)
    assert metrics["num_non_finite"] == 1
    assert metrics["num_scored"] == 19
    assert metrics["scores"]["perplexity"]["n"] == 19
    assert sum(metrics["class_balance"].values()) == 19
    json.dumps(metrics, allow_nan=False)


def test_a_run_without_a_single_finite_question_still_reports(tmp_path):
    batch = BatchPlan(np.arange(2), {}, np.ones((2, 2), bool))
    broken = outputs(np.full((2, 2), np.nan), np.zeros(2, bool))
    io.append_batch(tmp_path / "rows.jsonl", batch_rows([facts(0), facts(1)], batch, broken))
    metrics = measure(read_columns(tmp_path, 2), seed=0)
    assert metrics["num_non_finite"] == 2
    assert metrics["accuracy"] is None
    assert metrics["scores"] == {}
    json.dumps(metrics, allow_nan=False)


@pytest.fixture(scope="module")
def overflowing(make_model, tmp_path_factory):
    """A model whose activations overflow where it reads `cow`."""
    folder = tmp_path_factory.mktemp("overflowing") / "model"
    return make_model(folder, string.printable, overflow="cow", context_length=1024)


def rows_of(directory):
    return [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]


def bad_ids(directory):
    return [row["id"] for row in rows_of(directory) if row["status"] == "non_finite"]


def check_warning(error, directory, count):
    """One line with every id."""
    (line,) = [line for line in error.splitlines() if "not finite" in line]
    ids = bad_ids(directory)
    assert line.startswith(
        f"warning: {len(ids)} of {count} questions gave numbers that are not fin"
    )
    assert f": {', '.join(ids)}; their rows" in line


def test_score_names_the_questions_and_goes_on(overflowing, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--quiet", "--no-plots")
    assert main(tiny.score_arguments(out, *words, model=overflowing, batch_tokens=2048)) == 0
    cows = [q["id"] for q in tiny.questions if "cow" in f"{q['question']} {q['choices']}"]
    assert 0 < len(cows) < len(tiny.questions)
    assert bad_ids(out) == cows
    check_warning(capsys.readouterr().err, out, len(tiny.questions))
    assert json.loads((out / "metrics.json").read_text())["num_non_finite"] == len(cows)
    assert main(["evaluate", str(out), *words]) == 0
    check_warning(capsys.readouterr().err, out, len(tiny.questions))


def test_generate_and_its_scores_name_the_questions_and_go_on(overflowing, tmp_path, capsys):
    data, made, out = tmp_path / "open.jsonl", tmp_path / "made", tmp_path / "out"
    write_open_questions(data)
    options = dict(task="open_qa", data=data, out=made, samples=1, max_tokens=6)
    assert main(words_of("generate", "--ask", "--quiet", model=overflowing, **options)) == 0
    check_warning(capsys.readouterr().err, made, 5)
    rows = rows_of(made)
    assert rows[2]["status"] == "non_finite"
    assert (rows[2]["correct"], rows[2]["p_true"]) == (None, None)
    assert rows[2]["greedy"]["ended"] == "not finite"
    assert 0 < len(bad_ids(made)) < 5
    words = words_of("score", "--quiet", "--no-plots", model=overflowing, generations=made, out=out)
    assert main(words) == 0
    check_warning(capsys.readouterr().err, out, 5)
    assert set(bad_ids(made)) <= set(bad_ids(out))
    assert rows_of(out)[2]["correct"] is None


def test_an_answer_from_numbers_that_overflowed_is_not_judged(tmp_path):
    """Its own tokens may be scored without an overflow: those of the samples had one."""
    log_likelihoods = np.float32([[-1.0, -2.0]])
    batch = BatchPlan(np.arange(1), {}, np.ones((1, 2), bool))
    facts_of = [facts(0)._replace(finite=False)]
    (row,) = batch_rows(facts_of, batch, outputs(log_likelihoods, np.ones(1, bool)))
    assert (row["status"], row["correct"], row["mc2"]) == ("non_finite", None, None)
    assert row["answers"][0]["log_likelihood"] == -1


def corpus(path, *documents):
    path.write_text("\n<|endoftext|>\n".join(documents))
    return path


def fisher_words(model, data, out, **more):
    options = dict(model=model, data=data, out=out, length=8, batch=2, checkpoint_every=2)
    return words_of("fisher", "--quiet", "--no-plots", **options, **more)


def test_fisher_names_the_batch_and_leaves_it_out(overflowing, tmp_path, capsys):
    data = corpus(tmp_path / "corpus.txt", *(["cat eat dog"] * 5), "hen cow", *(["dog run"] * 2))
    out = tmp_path / "out"
    assert main(fisher_words(overflowing, data, out, kind="ekfac")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        *(
            f"warning: pass {number}: batch 3 of 4 (windows 4 to 5 of the corpus) gives sums that "
            "are not finite and is left out"
            for number in (1, 2)
        ),
        "warning: 2 batches of all passes gave sums that are not finite and were left out",
    ]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load_tree(out / "operator")))


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_fisher_of_nothing_finite_is_one_line(kind, overflowing, tmp_path, capsys):
    out = tmp_path / "out"
    data = corpus(tmp_path / "corpus.txt", "hen cow", "cow cow")
    assert main(fisher_words(overflowing, data, out, kind=kind)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: nothing was observed (1 batches were skipped")
    assert not (out / "operator").exists()


def test_finetune_stops_at_the_step_and_keeps_what_was_before(overflowing, tmp_path, capsys):
    data, out = corpus(tmp_path / "corpus.txt", "hen cow", "cow cow"), tmp_path / "out"
    words = words_of(
        "finetune", "--quiet", model=overflowing, data=data, out=out, length=8, steps=3
    )
    for _ in range(2):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: step 0 (loss nan) gives numbers that are not finite")
        assert error.count("\n") == 1
        assert [path.name for path in (out / "states").iterdir()] == ["000000000"]
        kept = load_tree(out / "states" / "000000000")["trained"]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))
    assert not (out / "adapters").exists()
    assert (out / "losses.jsonl").read_bytes() == b""
