"""`kill -9` inside a write of every stage, then the same command: the bytes of a whole run.

The process kills itself at a chosen call, so that it is the same moment on any machine; random
moments are those of `make soak`.
"""

import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.run_contents import differences
from fishjax.cli import main

from .disturbed import check_what_is_left
from .stages import fresh

CHILD = """
import os, signal, sys
from fishjax.cli import main
from tests.failing_disk import FailingDisk

out, name, path, times, stop, *words = sys.argv[1:]
met = []

def fails(call, number):
    met.append(call == (name, path))
    return sum(met) == int(times)

with FailingDisk(out, fails, lambda path: os.kill(os.getpid(), getattr(signal, stop))):
    sys.exit(main(words))
"""

# stage -> the call before which it dies, and how many of them there were
pytestmark = pytest.mark.usefixtures("own_signals")
MOMENTS = {
    "score": ("write", "rows.jsonl", 3),
    "generate": ("fsync", "rows.jsonl", 2),
    "generations": ("replace", ".metrics.json.tmp", 1),
    "fisher": ("rename", "states/.#-#.tmp/arrays.orbax-checkpoint-tmp", 2),
    "adapters": ("rename", "states/.#.tmp", 2),
}


def stopped(words, out, moment, stop):
    name, path, times = moment
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(out), name, path, str(times), stop, *words],
        cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"a picture")
    )


@pytest.mark.parametrize("name", MOMENTS)
def test_a_killed_run_resumes_to_the_same_bytes(name, stages, tmp_path, capsys):
    expected, out = stages.undisturbed(name), fresh(tmp_path, "out")
    words = [word for word in stages.words(name, out) if word != "--quiet"]
    died = stopped(words, out, MOMENTS[name], "SIGKILL")
    assert died.returncode == -signal.SIGKILL, died.stderr
    check_what_is_left(out, expected)
    rows = out / "rows.jsonl"
    if rows.exists():  # and a power cut: a torn last line
        rows.write_bytes(rows.read_bytes()[:-7])
    capsys.readouterr()
    assert main(words) == 0
    assert not differences(out, expected)
    said = capsys.readouterr().err
    if name in ("score", "generate", "fisher", "adapters"):
        assert "resuming" in said
    if name == "score":
        assert "plan: 12 questions, 34 answers" in said
        assert "memory: weights" in said


@pytest.mark.parametrize(
    ("stop", "status", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_the_status_of_a_stopped_process(stop, status, word, stages, tmp_path):
    out = tmp_path / "out"
    done = stopped(stages.words("generate", out), out, MOMENTS["generate"], stop)
    assert done.returncode == status
    assert done.stderr == f"error: {word}; the same command run again resumes\n"
