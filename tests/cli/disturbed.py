"""A stage that something stops again and again: what is left each time, and what it ends with."""

import itertools
import re

from experiments.run_contents import differences, file_content
from fishjax.cli import main
from fishjax.io.checkpoints import load_tree
from fishjax.models import load
from tests.failing_disk import FailingDisk

from .stages import fresh

APPENDED = ("rows.jsonl", "losses.jsonl")


def kind_of(call):
    """The same for all writes inside a temporary tree, and for all pictures."""
    name, path = call
    return name, re.sub(r"(?<=\.tmp/).*|(?<=^plots/)\..*", "*", path)


def writes_of(stages, name, folder):
    """Kinds of calls of a stage, in the order in which they first come."""
    out = fresh(folder, "listed")
    with FailingDisk(out) as disk:
        assert main(stages.words(name, out)) == 0
    assert not differences(out, stages.undisturbed(name))
    return list(dict.fromkeys(map(kind_of, disk.calls)))


def check_what_is_left(out, expected):
    """Nothing that a later command would take for whole, unless it is."""
    visible = [p.name for p in out.iterdir() if not p.name.startswith(".")] if out.exists() else []
    for name in visible:
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
            assert file_content(out / name) == file_content(expected / name)


def num_rows(out):
    path = out / "rows.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def until_done(stages, name, folder, stops, *, disk_of, check):
    """Runs a stage with one stop after another in one directory, then to its end.

    A stop that the stage has passed already is met in a new directory. `disk_of(out, stop)` stops
    it, `check(status, out)` looks at how it ended.
    """
    expected, stops = stages.undisturbed(name), list(stops)
    for number in itertools.count():
        out, met, kept = fresh(folder, f"out{number}"), [], 0
        for stop in stops:
            with disk_of(out, stop) as disk:
                status = main(stages.words(name, out))
            if not disk.hits:
                assert status == 0
                break
            met.append(stop)
            check(status, out)
            check_what_is_left(out, expected)
            assert num_rows(out) >= kept
            kept = num_rows(out)
        assert met, f"never met: {stops}"
        assert main(stages.words(name, out)) == 0
        assert not differences(out, expected)
        stops = stops[len(met) :]
        if not stops:
            return
