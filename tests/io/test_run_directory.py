"""One run a directory: manifest, foreign files, lock."""

import json
import os
import signal
import subprocess
import sys

import pytest

from fishjax import io

MANIFEST = {"settings": {"schema_version": 1, "task": "a", "seed": 0}, "model": "m"}


def start(directory, manifest=MANIFEST):
    with io.open_run(directory, manifest):
        return (directory / "run.json").read_bytes()


def test_the_manifest_is_written_first_and_recognised_again(tmp_path):
    directory = tmp_path / "a" / "b"
    first = start(directory)
    assert json.loads(first) == MANIFEST
    assert start(directory, MANIFEST | {"model": "renamed"}) == first
    assert io.read_manifest(directory) == MANIFEST


def test_another_run_names_the_settings_that_differ(tmp_path):
    start(tmp_path)
    other = {"settings": {"schema_version": 1, "task": "b", "seed": 1}}
    with pytest.raises(io.RunDirectoryError, match=r"task is 'a' there and 'b' here.*seed is 0"):
        start(tmp_path, other)


@pytest.mark.parametrize("name", ["notes.txt", "rows.jsonl", "plots"])
def test_files_of_someone_else_are_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(io.RunDirectoryError, match=name):
        start(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_foreign_file_beside_a_run_is_refused(tmp_path):
    start(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(io.RunDirectoryError, match=r"not of this run \(notes\.txt\)"):
        start(tmp_path)


def test_leftovers_of_a_kill_before_the_manifest_do_not_block(tmp_path):
    (tmp_path / ".run.json.tmp").write_text("{")
    (tmp_path / ".lock").write_text("")
    assert json.loads(start(tmp_path)) == MANIFEST


def test_a_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(io.RunDirectoryError, match="is a file"):
        start(tmp_path / "x")
    with pytest.raises(io.OutputError, match="cannot write"):
        start(tmp_path / "x" / "y")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 1}', "\0", '{"settings": {}}'])
def test_a_damaged_manifest_is_one_message(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(io.RowsError, match=r"run\.json"):
        start(tmp_path)


HOLD = """
import pathlib, sys, time
from fishjax import io
with io.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_killed_one_does_not_block(tmp_path):
    start(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(io.RunDirectoryError, match="another fishjax process"):
            start(tmp_path)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    start(tmp_path)
