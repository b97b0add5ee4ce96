"""Evaluating rows again, damaged rows, missing plots extra."""

import json
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fishjax import metrics, runs
from fishjax.cli import main


def test_evaluate_gives_the_same_metrics_and_plots(finished_copy, capsys):
    names = ["metrics.json", *(f"plots/{p.name}" for p in (finished_copy / "plots").iterdir())]
    before = {name: (finished_copy / name).read_bytes() for name in names}
    for name in names:
        if name != "metrics.json":
            (finished_copy / name).unlink()
    assert main(["evaluate", str(finished_copy)]) == 0
    for name in names:
        assert (finished_copy / name).read_bytes() == before[name], name
    assert "AUROC of predicting a correct answer" in capsys.readouterr().out


def test_evaluate_without_old_metrics_only_lacks_the_effort(finished_copy):
    path = finished_copy / "metrics.json"
    before = json.loads(path.read_text())
    path.unlink()
    assert main(["evaluate", str(finished_copy), "--quiet", "--no-plots"]) == 0
    assert json.loads(path.read_text()) == before | {"effort": None}


def test_without_matplotlib_one_line_says_so(finished_copy, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [n for n in sys.modules if n.startswith("fishjax.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["evaluate", str(finished_copy)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "no plots: matplotlib is not installed (pip install 'fishjax[plots]')\n"
    assert "AUROC" in captured.out


def damage(number, change):
    def apply(lines):
        row = json.loads(lines[number])
        change(row)
        lines[number] = json.dumps(row)
        return lines

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "11 of 12 rows"),
        (lambda lines: [*lines[:3], "{", *lines[4:]], "line 4: malformed row"),
        (damage(2, lambda row: row.pop("labels")), "line 3: the row has no 'labels'"),
        (damage(2, lambda row: row.update(correct="yes")), "line 3: not a row of this schema"),
        (damage(2, lambda row: row.update(status="?")), "line 3: not a row of this schema"),
        (damage(2, lambda row: row.update(schema_version=9)), "line 3: schema version 9"),
        (damage(5, lambda row: row.update(scores=[])), "line 6: not a row of this schema"),
        (damage(5, lambda row: row["scores"].pop("margin")), "line 6: the row has no 'margin'"),
        (damage(5, lambda row: row["scores"].update(margin="1")), "line 6: not a row"),
        (damage(5, lambda row: row.update(chosen=7)), "line 6: not a row of this schema"),
        (damage(5, lambda row: row.update(answers=None)), "line 6: not a row of this schema"),
        (damage(5, lambda row: row.update(labels=[1])), "line 6: not a row of this schema"),
    ],
)
def test_damaged_rows_are_named_by_line(finished_copy, capsys, change, message):
    path = finished_copy / "rows.jsonl"
    lines = change(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in lines))
    before = (finished_copy / "metrics.json").read_bytes()
    assert main(["evaluate", str(finished_copy), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert (finished_copy / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("command", ["generate", "fisher", "finetune"])
def test_runs_of_other_commands_are_named(command, tmp_path, capsys):
    settings = {"schema_version": 1, "command": command}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"is a run of `fishjax {command}`: expected one of" in capsys.readouterr().err
    if command != "fisher":
        words = ["fisher", "merge", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "out")]
        assert main(words) == 2
        assert "is no run of `fishjax fisher`" in capsys.readouterr().err


def test_evaluating_nothing_is_one_line(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent")]) == 2
    assert main(["evaluate", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("holds no fishjax run" in line for line in lines)


SEED = 0


@pytest.fixture
def many(finished_copy):
    """Its twelve rows five times over, half of them correct, with scores that tell a little."""
    lines = (finished_copy / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in 5 * lines]
    rng = np.random.default_rng(1)
    for index, row in enumerate(rows):
        correct = bool(index % 2)
        row.update(index=index, id=f"q{index}", correct=correct, status="ok")
        row["scores"]["log_epistemic"] = float(rng.normal(-correct))
        row["scores"]["margin"] = float(rng.normal(0.8 * correct))
    write(finished_copy, rows)
    return finished_copy, rows


def write(directory, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "rows.jsonl").write_text(text)
    manifest = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(manifest | {"num_questions": len(rows)}))


def metrics_of(directory, *combine):
    assert main(["evaluate", str(directory), "--no-plots", *combine]) == 0
    return json.loads((directory / "metrics.json").read_text())


def by_hand(rows, names, groups=None):
    values = {name: np.array([row["scores"][name] for row in rows], float) for name in names}
    correct = np.array([row["correct"] for row in rows])
    return metrics.combine_scores(
        {name.removeprefix("log_"): column for name, column in values.items()},
        correct,
        rng=np.random.default_rng(SEED),
        groups=groups,
    )


def test_a_combination_stands_beside_the_best_score_and_is_called_supervised(many, capsys):
    directory, rows = many
    plain = metrics_of(directory)
    before, shown = (directory / "metrics.json").read_bytes(), capsys.readouterr().out
    assert "supervised, " not in shown
    assert "supervised_epistemic_aleatoric" in shown
    found = metrics_of(directory, "--combine", "epistemic", "margin", "epistemic")
    told = " ".join(capsys.readouterr().out.split())
    combination = found.pop("combination")
    assert found == plain
    expected = by_hand(rows, ["log_epistemic", "margin"])
    assert combination["supervised"] is True
    assert combination["scores"] == ["epistemic", "margin"]
    assert combination["auroc"] == pytest.approx(expected.auroc)
    assert combination["interval"] == pytest.approx(list(expected.interval))
    assert combination["coefficients"]["margin"] == expected.coefficients["margin"]._asdict()
    assert combination["coefficients"]["epistemic"]["mean"] < 0  # directions are learned
    assert (combination["num_folds"], combination["fold_sizes"]) == (5, [12] * 5)
    repeats = combination["repeats"]
    assert len(repeats) == combination["num_repeats"] == 10
    assert combination["auroc"] == pytest.approx(np.mean(repeats))
    assert combination["spread"] == pytest.approx(np.std(repeats, ddof=1))
    assert (combination["num_used"], combination["num_missing"]) == (60, 0)
    areas = {n: found["scores"][n]["auroc"] for n in ("epistemic", "margin")}
    best = combination["best_single"]
    assert (best["score"], best["auroc"]) == max(areas.items(), key=lambda item: item[1])
    assert best["auroc"] == pytest.approx(
        roc_auc_score(
            [row["correct"] for row in rows],
            [{"epistemic": -1, "margin": 1}[best["score"]]
             * row["scores"][{"epistemic": "log_epistemic"}.get(best["score"], best["score"])]
             for row in rows],
        )
    )  # fmt: skip
    assert "combination of epistemic, margin (supervised, 5-fold cross-validated 10 times)" in told
    assert f"{min(repeats):.3f} to {max(repeats):.3f} (standard deviation" in told
    assert f"best of them alone: {best['score']} {best['auroc']:.3f}" in told
    assert metrics_of(directory) == plain
    assert (directory / "metrics.json").read_bytes() == before


def test_missing_scores_are_counted_and_rows_of_a_question_share_a_fold(many):
    directory, rows = many
    for row in rows[:3]:
        row["scores"]["margin"] = None
    rows[4]["scores"].update(epistemic=0.0, log_epistemic=None)  # an exact zero, not missing
    for index, row in enumerate(rows):
        row["id"] = f"q{index // 3}"
    write(directory, rows)
    combination = runs.evaluate(
        directory=directory, combine=["epistemic", "margin"], quiet=True, no_plots=True
    )
    combination = json.loads((combination / "metrics.json").read_text())["combination"]
    assert combination["missing"] == {"epistemic": 0, "margin": 3}
    assert (combination["num_used"], combination["num_missing"]) == (57, 3)
    rows[4]["scores"]["log_epistemic"] = -200.0
    groups = [row["id"] for row in rows]
    expected = by_hand(rows, ["log_epistemic", "margin"], groups)
    assert combination["auroc"] == pytest.approx(expected.auroc)
    assert expected.auroc != by_hand(rows, ["log_epistemic", "margin"]).auroc


def test_without_names_the_usual_scores_are_combined(many):
    combination = metrics_of(many[0], "--combine")["combination"]
    names = ["epistemic", "aleatoric", "maximum_probability", "perplexity", "sequence_epistemic"]
    assert combination["scores"] == names
    assert 0 <= combination["auroc"] <= 1
    assert combination["coefficients"].keys() == set(names)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: row.update(correct=True), "0 of 60 questions have a wrong answer: 5 folds"),
        (lambda row: row.update(correct=row["index"] < 4), "4 of 60 questions have a correct"),
        (lambda row: row.update(id="same"), "1 of 1 questions have a correct answer: 5 folds"),
        (lambda row: row["scores"].update(margin=None), "no question has all of these scores"),
        (lambda row: row.update(status="non_finite"), None),
    ],
)
def test_what_cannot_be_combined_is_null_with_a_reason(many, change, reason, capsys):
    directory, rows = many
    for row in rows:
        change(row)
    write(directory, rows)
    if reason is None:
        assert main(["evaluate", str(directory), "--no-plots", "--combine", "margin"]) == 2
        assert "--combine margin: the run has no such score: expected none, no question was" in (
            capsys.readouterr().err
        )
        combination = metrics_of(directory, "--combine")["combination"]
        assert combination["reason"] == "the run has none of the usual scores: name some"
        return
    combination = metrics_of(directory, "--combine", "margin", "epistemic")["combination"]
    assert combination["auroc"] is combination["interval"] is combination["coefficients"] is None
    assert combination["supervised"] is True
    assert reason in combination["reason"]
    assert f"undefined, {combination['reason']}" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_score_is_one_line_and_changes_nothing(many, capsys):
    directory = many[0]
    metrics_of(directory)
    before = (directory / "metrics.json").read_bytes()
    assert main(["evaluate", str(directory), "--combine", "margin", "entropie"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --combine entropie: the run has no such score: expected ")
    assert "semantic_entropy" not in error
    assert error.count("\n") == 1
    assert (directory / "metrics.json").read_bytes() == before
