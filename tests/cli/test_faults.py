"""A disk that is full at any single write of any stage: one message, nothing lost, same bytes.

Every stage runs once to list its writes, then with each of them failing. What is left after every
failure is looked at, and at last the same command is run to its end. Writes inside a tree of arrays
count as one of each kind here: `tests/io/test_checkpoints.py` has each of them fail.
"""

import itertools
import re

import pytest

from experiments.run_contents import contents, differences
from fishjax.cli import main
from fishjax.io.checkpoints import load_tree
from fishjax.models import load
from tests.failing_disk import FailingDisk

from .stages import fresh

STAGES = ("score", "text", "generate", "generations", "fisher", "merge", "adapters", "full")
APPENDED = ("rows.jsonl", "losses.jsonl")


def writes_of(stages, name, folder):
    """Distinct calls of a stage, in the order in which they first come."""
    out = fresh(folder, "listed")
    with FailingDisk(out) as disk:
        assert main(stages.words(name, out)) == 0
    assert not differences(out, stages.undisturbed(name))
    return list(dict.fromkeys(map(kind_of, disk.calls)))


def kind_of(call):
    """The same for all writes inside a temporary tree, and for all pictures."""
    name, path = call
    return name, re.sub(r"(?<=\.tmp/).*|(?<=^plots/)\..*", "*", path)


def check_message(error, out):
    lines = [line for line in error.splitlines() if not line.startswith("warning")]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: cannot write "), error
    assert str(out) in error
    assert "run the same command again" in error


def check_what_is_left(out, expected):
    """Nothing that a later command would take for whole, unless it is."""
    for name in (path.name for path in out.iterdir() if not path.name.startswith(".")):
        if name in APPENDED:
            lines = (out / name).read_bytes().splitlines(keepends=True)
            assert set(lines) <= set((expected / name).read_bytes().splitlines(keepends=True))
        elif name == "states":
            for state in (out / name).glob("[0-9]*"):
                load_tree(state)
        elif name == "model":
            load(out / name)
            assert not differences(out / name, expected / name)
        elif (out / name).is_dir() and name != "plots":
            assert not differences(out / name, expected / name)
        elif name != "plots":
            assert contents(out)[name] == contents(expected)[name]


def until_done(stages, name, folder, failures, disk_of, capsys):
    """Runs a stage with one failure after another in one directory, then to its end.

    A failure that the stage has passed already is met in a new directory.
    """
    expected = stages.undisturbed(name)
    failures = list(failures)
    for number in itertools.count():
        out, met, kept = fresh(folder, f"out{number}"), [], 0
        for failure in failures:
            with disk_of(out, failure) as disk:
                status = main(stages.words(name, out))
            if not disk.hits:
                assert status == 0
                break
            assert status == 1, failure
            met.append(failure)
            check_message(capsys.readouterr().err, out)
            if out.exists():
                check_what_is_left(out, expected)
            rows = out / "rows.jsonl"
            found = rows.read_bytes().count(b"\n") if rows.exists() else 0
            assert found >= kept
            kept = found
        assert met, f"never met: {failures}"
        assert main(stages.words(name, out)) == 0
        assert not differences(out, expected)
        failures = failures[len(met) :]
        if not failures:
            return


def failing_at(out, wanted):
    """From the first such call on, the disk is full."""
    met = []

    def fails(call, number):
        del number
        met.append(kind_of(call) == wanted)
        return any(met)

    return FailingDisk(out, fails)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_at_every_kind_of_write(name, stages, tmp_path, capsys):
    calls = writes_of(stages, name, tmp_path)
    assert len(calls) > 10
    until_done(stages, name, tmp_path, calls, failing_at, capsys)
