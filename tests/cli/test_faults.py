"""A disk that is full at any single write of any stage: one message, nothing lost, same bytes.

Every stage runs once to list its writes, then with each of them failing. What is left after every
failure is looked at, and at last the same command is run to its end. Writes inside a tree of arrays
count as one of each kind here: `tests/io/test_checkpoints.py` has each of them fail.
"""

import shutil

import pytest

from experiments.run_contents import differences
from fishjax import io
from fishjax.cli import main
from fishjax.cli.demo_plot import save_heat_maps
from tests.failing_disk import FailingDisk, no_file_larger_than

from .disturbed import check_what_is_left, kind_of, until_done, writes_of
from .stages import fresh

STAGES = ("score", "text", "generate", "generations", "fisher", "merge", "adapters", "full")


def check_message(error, out):
    lines = [line for line in error.splitlines() if not line.startswith("warning")]
    assert len(lines) == 1, error
    assert lines[0].startswith(f"error: cannot write {out}"), error
    assert "run the same command again" in error


def full_from(out, wanted):
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
    def check(status, out):
        assert status == 1
        check_message(capsys.readouterr().err, out)

    calls = writes_of(stages, name, tmp_path)
    assert len(calls) > 10
    calls = calls[::3] if name == "merge" else calls  # the functions of fisher
    until_done(stages, name, tmp_path, calls, disk_of=full_from, check=check)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["fisher", "adapters"])
def test_writes_of_libraries_that_fail(name, stages, tmp_path, capsys):
    """TensorStore and safetensors write in C++ and Rust, and have exceptions of their own."""
    expected = stages.undisturbed(name)
    sizes = {path.stat().st_size for path in expected.rglob("*") if path.is_file()}
    out = fresh(tmp_path, "out")
    failures = 0
    for size in sorted(sizes)[1::4]:
        with no_file_larger_than(size - 1):
            status = main(stages.words(name, out))
        if status == 0:  # what is left to do has smaller files
            break
        failures += 1
        error = capsys.readouterr().err
        check_message(error, out)
        assert "File too large" in error
        check_what_is_left(out, expected)
    assert failures > 2
    assert main(stages.words(name, out)) == 0
    assert not differences(out, expected)


def damage(run):
    """Flips one bit of its newest state's arrays, not in the second copy that nobody reads."""
    files = list((run / "states").glob("*/arrays/d/*"))
    largest = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["fisher", "adapters"])
def test_a_damaged_state_is_named_and_can_be_removed(name, stages, tmp_path, capsys):
    out = shutil.copytree(stages.undisturbed(name), tmp_path / "out")
    damage(out)
    assert main(stages.words(name, out)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    (state,) = (out / "states").iterdir()
    assert line.startswith(f"error: {state} cannot be read")
    assert "remove it and run the command that wrote it again" in line
    shutil.rmtree(state)
    assert main(stages.words(name, out)) == 0
    assert not differences(out, stages.undisturbed(name))


@pytest.mark.usefixtures("quick")
def test_a_damaged_shard_of_a_worker_is_named(stages, tmp_path, capsys):
    *words, first, second, _, _, _ = stages.words("merge", tmp_path / "out")
    copy = shutil.copytree(second, tmp_path / "copy")
    damage(copy)
    out = tmp_path / "out"
    assert main([*words, first, str(copy), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {copy / 'states'}")
    assert "damaged or incomplete" in line
    assert not out.exists()


def test_heat_maps_appear_whole(tmp_path, monkeypatch):
    figure = "matplotlib.figure.Figure"
    monkeypatch.setattr(f"{figure}.savefig", lambda self, file, **_: file.write(b"a picture"))
    monkeypatch.setattr("fishjax.cli.demo_plot._draw", lambda *_: None)
    for allowed in range(5):
        with (
            FailingDisk(tmp_path, lambda call, number, allowed=allowed: number >= allowed),
            pytest.raises(io.OutputError, match=r"maps\.png: No space left on device"),
        ):
            save_heat_maps([], tmp_path / "maps.png")
        assert {p.read_bytes() for p in tmp_path.iterdir()} <= {b"a picture"}
    save_heat_maps([], tmp_path / "maps.png")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"a picture"]
