"""A full or failing disk at every single system call loses nothing that was written."""

import errno
import os

import pytest

from fishjax import io
from tests.failing_disk import FailingDisk


def outcome(action):
    try:
        action()
    except io.OutputError as error:
        return str(error)
    return None


def until_it_succeeds(folder, action, check):
    """Runs `action` with the disk failing after 0, 1, 2 … calls; `check` after each failure."""
    for allowed in range(100):
        with FailingDisk(folder, lambda call, number, allowed=allowed: number >= allowed):
            failure = outcome(action)
        if failure is None:
            return allowed
        assert "No space left on device" in failure
        assert "\n" not in failure
        check()
    raise AssertionError("never succeeded")


def test_an_atomic_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"old")

    def check():
        assert path.read_bytes() in (b"old", b"new")
        assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
        path.write_bytes(b"old")

    calls = until_it_succeeds(tmp_path, lambda: io.write_atomic(path, b"new"), check)
    assert calls >= 4
    assert path.read_bytes() == b"new"


def test_a_failed_append_leaves_whole_batches(tmp_path):
    path = tmp_path / "rows.jsonl"
    plan = [[0, 1], [2, 3]]
    io.append_batch(path, [{"index": 0}, {"index": 1}])
    before = path.read_bytes()

    def check():
        assert path.read_bytes().startswith(before)
        assert io.recover_rows(path, plan) in (1, 2)
        path.write_bytes(before)

    def action():
        io.append_batch(path, [{"index": 2}, {"index": 3}])

    until_it_succeeds(tmp_path, action, check)
    assert io.recover_rows(path, plan) == 2


def test_a_short_write_is_finished_or_undone(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    io.append_batch(path, [{"index": 0}])
    before = path.read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        io.append_batch(path, [{"index": 1}])
    assert path.read_bytes() == before + b'{"index":1}\n'

    calls = iter([3])

    def full_after_three_bytes(fd, data):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:3])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_after_three_bytes)
        with pytest.raises(io.OutputError, match="No space left"):
            io.append_batch(path, [{"index": 2}])
    assert path.read_bytes() == before + b'{"index":1}\n'


def test_the_final_reordering_keeps_every_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    plan = [[1], [0]]
    for batch in plan:
        io.append_batch(path, [{"index": i} for i in batch])

    def check():
        assert io.recover_rows(path, plan) == 2

    until_it_succeeds(tmp_path, lambda: io.finish_rows(path), check)
    assert [row["index"] for row in io.read_rows(path, 2)] == [0, 1]


def test_a_read_only_directory_is_one_message(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)  # root ignores permission bits
    with (
        pytest.raises(io.OutputError, match="Permission denied"),
        io.open_run(tmp_path, {"settings": {"schema_version": 1}}),
    ):
        pass
