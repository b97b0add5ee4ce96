"""`fishjax evaluate --by`: what a question file says of its questions, and metrics by it."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fishjax import runs
from fishjax.cli import main

SUBJECTS = ("law", "physics", "poetry")


@pytest.fixture(scope="module")
def asked(tiny, tmp_path_factory):
    """A run on questions with fields of their own, one of them named like a score."""
    folder = tmp_path_factory.mktemp("groups")
    questions = [
        {**q, "subject": SUBJECTS[i % 3], "epistemic": i, "entity": {"popularity": 7 * i}}
        for i, q in enumerate(tiny.questions)
    ]
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in questions))
    out = folder / "out"
    arguments = tiny.score_arguments(out, "--quiet", "--no-plots", data=data, parameters="final*")
    assert main(arguments) == 0
    return out


def rows_of(directory):
    return [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]


def test_rows_and_frames_keep_what_the_file_says_apart_from_scores(asked):
    for i, row in enumerate(rows_of(asked)):
        expected = {"subject": SUBJECTS[i % 3], "epistemic": i, "entity": {"popularity": 7 * i}}
        assert row["metadata"] == expected
    frame = runs.open_frame(asked)
    assert list(frame["metadata.subject"][:3]) == list(SUBJECTS)
    assert list(frame["metadata.entity.popularity"]) == [7 * i for i in range(12)]
    assert list(frame["metadata.epistemic"]) == list(range(12))
    assert frame["scores.log_epistemic"].notna().all()


@pytest.fixture
def many(asked, tmp_path):
    """240 rows of it with drawn outcomes: poetry is easy, law is hard, physics has no field."""
    rng = np.random.default_rng(3)
    rows = [json.loads(json.dumps(row)) for row in 20 * rows_of(asked)]
    chance = dict(zip(SUBJECTS, (0.02, 0.5, 0.7), strict=True))
    for index, row in enumerate(rows):
        subject = row["metadata"]["subject"]
        correct = bool(rng.random() < chance[subject])
        row.update(index=index, id=f"q{index}", correct=correct)
        row["scores"]["log_epistemic"] = float(rng.normal(-correct))
        row["metadata"]["entity"]["popularity"] = int(rng.integers(0, 1000)) * 3
        if subject == "physics":
            del row["metadata"]["subject"]
    rows[2].update(status="non_finite")
    return write(tmp_path / "many", asked, rows), rows


def write(directory, run, rows):
    directory.mkdir()
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((run / "run.json").read_text()) | {"num_questions": len(rows)}
    (directory / "run.json").write_text(json.dumps(manifest))
    return directory


def evaluated(directory, *fields):
    assert main(["evaluate", str(directory), "--no-plots", "--by", *fields]) == 0
    return json.loads((directory / "metrics.json").read_text())


def check(group, rows):
    """Its numbers are those of the rows, scored by scikit-learn."""
    scored = [row for row in rows if row["status"] == "ok"]
    correct = [row["correct"] for row in scored]
    assert group["num_questions"] == len(rows)
    assert group["num_scored"] == len(scored)
    assert group["num_non_finite"] == len(rows) - len(scored)
    assert group["class_balance"] == {"correct": sum(correct), "incorrect": correct.count(False)}
    assert group["accuracy"] == pytest.approx(np.mean(correct))
    epistemic = group["scores"]["epistemic"]
    expected = roc_auc_score(correct, [-row["scores"]["log_epistemic"] for row in scored])
    assert epistemic["auroc"] == pytest.approx(expected)
    assert epistemic["n"] == len(scored)
    return epistemic


def test_groups_by_value_say_which_are_too_small(many, capsys):
    directory, rows = many
    assert main(["evaluate", str(directory), "--no-plots"]) == 0
    plain = json.loads((directory / "metrics.json").read_text())
    capsys.readouterr()
    found = evaluated(directory, "subject")
    by = found.pop("by")
    assert found == plain
    assert by["subject"]["kind"] == "values"
    law, poetry, missing = by["subject"]["groups"]
    assert [group["value"] for group in (law, poetry, missing)] == ["law", "poetry", None]
    members = {
        name: [row for row in rows if row["metadata"].get("subject") == name]
        for name in ("law", "poetry", None)
    }
    assert 0 < law["class_balance"]["correct"] < 5
    assert check(law, members["law"])["interval"] is None
    assert "no interval below 5" in law["note"]
    for group in (poetry, missing):
        low, high = check(group, members[group["value"]])["interval"]
        assert low <= group["scores"]["epistemic"]["auroc"] <= high
        assert group["note"] is None
    assert poetry["num_non_finite"] == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "by subject: AUROC [95 % interval] of predicting a correct answer" in told
    assert "(none)" in told
    assert "no interval below 5 answers of a class" in told


def test_numbers_of_many_values_are_cut_at_their_quartiles(many):
    directory, rows = many
    metrics = evaluated(directory, "entity.popularity", "epistemic")
    found = metrics["by"]["entity.popularity"]
    assert found["kind"] == "quantiles"
    groups = found["groups"]
    assert len(groups) == 4
    numbers = np.array([row["metadata"]["entity"]["popularity"] for row in rows])
    edges = np.quantile(numbers, [0.25, 0.5, 0.75])
    for place, group in enumerate(groups):
        inside = (numbers >= group["low"]) & (numbers <= group["high"])
        assert (np.searchsorted(edges, numbers[inside]) == place).all()
        check(group, [row for row, held in zip(rows, inside, strict=True) if held])
    assert sum(group["num_questions"] for group in groups) == len(rows)
    assert metrics["by"]["epistemic"]["kind"] == "quantiles"  # 0 to 11


def test_few_numbers_flags_and_csv_numbers(many, tmp_path):
    directory, rows = many
    for index, row in enumerate(rows):
        row["metadata"] = {
            "hops": index % 3 * 10, "open": index % 2 == 0, "year": str(1900 + index % 50),
            "label": "a" if index % 2 else 1,
        }  # fmt: skip
    by = evaluated(write(tmp_path / "more", directory, rows), "hops", "open", "year", "label")["by"]
    names = {
        field: [group.get("value") for group in found["groups"]] for field, found in by.items()
    }
    assert names["hops"] == ["0", "10", "20"]
    assert names["open"] == ["false", "true"]
    assert by["year"]["groups"][0]["low"] == 1900
    assert by["year"]["kind"] == "quantiles"
    assert names["label"] == ["1", "a"]


def test_one_class_is_said(many, tmp_path):
    directory, rows = many
    for row in rows:
        row.update(correct=True)
    groups = evaluated(write(tmp_path / "right", directory, rows), "subject")["by"]["subject"][
        "groups"
    ]
    for group in groups:
        assert group["note"] == "no wrong answer: no AUROC"
        assert group["scores"]["epistemic"] == {
            "auroc": None, "interval": None, "n": group["num_scored"]
        }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "subjects",
            "--by subjects: no question of the run has such a field: expected entity.p",
        ),
        ("subject.name", "no question of the run has such a field"),
        ("entity", "has dict there: expected text, a number, or true and false"),
    ],
)
def test_a_field_that_cannot_be_used_is_one_line_and_changes_nothing(many, field, message, capsys):
    directory, _ = many
    evaluated(directory, "subject")
    before = (directory / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main(["evaluate", str(directory), "--no-plots", "--by", field]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (directory / "metrics.json").read_bytes() == before


def test_rows_of_earlier_versions_are_read_and_have_no_fields(asked, tmp_path, capsys):
    rows = rows_of(asked)
    for row in rows:
        del row["metadata"]
    directory = write(tmp_path / "old", asked, rows)
    assert main(["evaluate", str(directory), "--no-plots"]) == 0
    assert main(["evaluate", str(directory), "--no-plots", "--by", "subject"]) == 2
    assert "its rows have no metadata at all" in capsys.readouterr().err


def test_a_damaged_field_is_named_by_line(asked, tmp_path, capsys):
    rows = rows_of(asked)
    rows[4]["metadata"] = ["law"]
    directory = write(tmp_path / "damaged", asked, rows)
    assert main(["evaluate", str(directory), "--no-plots", "--by", "subject"]) == 2
    assert "line 5: not a row of this schema" in capsys.readouterr().err


def test_from_python_one_field_is_a_text(many):
    directory, _ = many
    runs.evaluate(directory=directory, by="subject", quiet=True, no_plots=True)
    assert json.loads((directory / "metrics.json").read_text())["by"].keys() == {"subject"}


def test_metadata_with_an_infinite_number_is_refused_before_the_run(tiny, tmp_path, capsys):
    data = tmp_path / "questions.jsonl"
    line = json.dumps(tiny.questions[0])
    data.write_text(line[:-1] + ', "popularity": 1e999}\n')
    assert main(tiny.score_arguments(tmp_path / "out", data=data)) == 2
    assert "line 1: malformed JSON" in capsys.readouterr().err


def test_an_unfinished_run_of_an_earlier_version_is_not_resumed(asked, tiny, tmp_path, capsys):
    directory = write(tmp_path / "old", asked, rows_of(asked)[:3])
    manifest = json.loads((directory / "run.json").read_text())
    del manifest["settings"]["facts_sha256"]
    (directory / "run.json").write_text(json.dumps(manifest))
    data = asked.parent / "questions.jsonl"
    assert main(tiny.score_arguments(directory, data=data, parameters="final*")) == 2
    assert "facts_sha256 is None there" in capsys.readouterr().err
