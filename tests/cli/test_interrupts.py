"""Ctrl-C at any moment, and a second run beside the first: one line, files whole, same bytes."""

import pytest

from fishjax import io
from fishjax.cli import main
from tests.failing_disk import FailingDisk, interrupt

from .disturbed import kind_of, until_done, writes_of

STAGES = ("score", "generate", "fisher", "adapters")
INTERRUPTED = "error: interrupted; the same command run again resumes"


def interrupted_at(out, wanted):
    """A real SIGINT, at the first such call."""
    met = []

    def fails(call, number):
        del number
        met.append(kind_of(call) == wanted)
        return met[-1] and sum(met) == 1

    return FailingDisk(out, fails, interrupt)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", STAGES)
def test_ctrl_c_at_any_moment(name, stages, tmp_path, capsys):
    def check(status, out):
        del out
        assert status == 130
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if not line.startswith("warning")] == [INTERRUPTED]

    calls = writes_of(stages, name, tmp_path)
    moments = calls if name in ("score", "generate") else calls[1::3]
    until_done(stages, name, tmp_path, moments, disk_of=interrupted_at, check=check)


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
