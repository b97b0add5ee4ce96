"""Ctrl-C, SIGTERM, a second run beside the first: one line, files whole, the same bytes."""

import functools
import importlib
import os
import signal
import threading

import pytest

from fishjax import io, runs
from fishjax.cli import main
from fishjax.cli.termination import Terminated, termination_raises
from tests.failing_disk import FailingDisk, interrupt, terminate

from .disturbed import kind_of, until_done, writes_of

pytestmark = pytest.mark.usefixtures("own_signals")
STAGES = ("score", "generate", "fisher", "adapters")
INTERRUPTED = "error: interrupted; the same command run again resumes"
TERMINATED = "error: terminated; the same command run again resumes"


def stopped_at(action, out, wanted):
    """A real signal, at the first such call."""
    met = []

    def fails(call, number):
        del number
        met.append(kind_of(call) == wanted)
        return met[-1] and sum(met) == 1

    return FailingDisk(out, fails, action)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    ("action", "code", "message"),
    [(interrupt, 130, INTERRUPTED), (terminate, 143, TERMINATED)],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_at_any_moment(name, action, code, message, stages, tmp_path, capsys):
    def check(status, out):
        del out
        assert status == code
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if not line.startswith("warning")] == [message]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    calls = writes_of(stages, name, tmp_path)
    first = 2 if action is terminate else 1  # other moments of the long stages
    moments = calls if name in ("score", "generate") else calls[first::3]
    disk_of = functools.partial(stopped_at, action)
    until_done(stages, name, tmp_path, moments, disk_of=disk_of, check=check)


@pytest.fixture
def handlers(monkeypatch):
    """What SIGTERM does while a command runs."""
    seen = []

    def run(args):
        del args
        seen.append(signal.getsignal(signal.SIGTERM))
        return 0

    monkeypatch.setattr(importlib.import_module("fishjax.cli.evaluate"), "run", run)
    return seen


def test_only_the_command_line_handles_sigterm(handlers):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    runs.evaluate(directory="here")
    thread = threading.Thread(target=main, args=(["evaluate", "here"],))
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL] * 2
    main(["evaluate", "here"])
    assert handlers[-1] not in (signal.SIG_DFL, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda number, frame: None])
def test_what_handles_sigterm_already_stays(theirs, handlers):
    before = signal.signal(signal.SIGTERM, theirs)
    try:
        main(["evaluate", "here"])
        assert handlers == [theirs]
        assert signal.getsignal(signal.SIGTERM) == theirs
    finally:
        signal.signal(signal.SIGTERM, before)


@termination_raises()
def _terminated_twice():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_lets_the_first_end():
    with pytest.raises(Terminated):
        _terminated_twice()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["score", "generate", "fisher", "adapters"])
def test_a_second_run_in_the_same_directory_is_refused(name, stages, tmp_path, capsys):
    out = tmp_path / "out"
    words = stages.words(name, out)
    out.mkdir()
    with io.locked(out):
        assert main(words) == 2
    error = capsys.readouterr().err
    message = f"another fishjax process is writing into {out}: wait for it or choose another"
    assert [line for line in error.splitlines() if not line.startswith("warning")] == [
        f"error: {message} directory"
    ]
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert main(words) == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "command"), [("score", "evaluate"), ("fisher", "inspect")])
def test_commands_on_a_finished_run_wait_for_its_lock(name, command, stages, capsys):
    out = stages.undisturbed(name)
    with io.locked(out):
        assert main([command, str(out), "--quiet"]) == 2
    assert "another fishjax process is writing into" in capsys.readouterr().err
