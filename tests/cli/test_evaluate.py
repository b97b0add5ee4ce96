"""Evaluating rows again, damaged rows, missing plots extra."""

import json
import sys

import pytest

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


def test_evaluating_nothing_is_one_line(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "absent")]) == 2
    assert main(["evaluate", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("holds no fishjax run" in line for line in lines)
