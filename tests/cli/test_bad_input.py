"""Everything foreseeable that is wrong ends with one line and a non-zero status."""

import errno
import importlib
import io
import json
import os
import pathlib
import sys

import numpy as np
import pytest

from fishjax import __version__
from fishjax.cli import main, programs, score
from fishjax.cli.main import COMMANDS

from .stages import FakePrograms


def fails(capsys, arguments, status, *fragments):
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for fragment in fragments:
        assert fragment in error, error
    return error


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fishjax {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_can_be_imported_and_helps(command, capsys):
    assert callable(importlib.import_module(command.module).run)
    assert main([command.name, "--help"]) == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["score"],
        ["score", "--limit", "0"],
        ["score", "--limit", "x"],
        ["score", "--seed", "-1"],
        ["score", "--batch-tokens", "0"],
        ["score", "--dtype", "int4"],
        ["evaluate"],
    ],
)
def test_bad_arguments_are_one_line(arguments, capsys):
    fails(capsys, arguments, 2)


GOOD = {"question": "cat", "choices": ["dog", "cow"], "answer": 0}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        (json.dumps(GOOD) + "\n{broken\n", "line 2"),
        (json.dumps(GOOD | {"choices": []}) + "\n", "line 1"),
        (json.dumps({"question": "cat", "answer": 0}) + "\n", "line 1"),
        (json.dumps(GOOD | {"answer": 2}) + "\n", "line 1"),
        (json.dumps(GOOD | {"answer": -1}) + "\n", "line 1"),
        (2 * (json.dumps(GOOD | {"id": "same"}) + "\n"), "same"),
        (json.dumps(GOOD | {"question": "日本"}, ensure_ascii=False) + "\n", "u65e5"),
        (json.dumps(GOOD | {"choices": ["cat " * 60, "dog"]}) + "\n", "61 tokens"),
        ('{"question": "cat", "choices": ["dog", "cow"], "answer": NaN}\n', "line 1"),
    ],
)
def test_bad_questions(tiny, tmp_path, capsys, text, fragment):
    data = tmp_path / "questions.jsonl"
    data.write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    fails(capsys, tiny.score_arguments(out, data=data), 2, fragment)
    assert not out.exists()


def test_missing_files_and_unknown_tasks(tiny, tmp_path, capsys):
    out, absent = tmp_path / "out", tmp_path / "absent"
    fails(capsys, tiny.score_arguments(out, data=absent), 2, "absent")
    fails(capsys, tiny.score_arguments(out, data=tmp_path), 2, str(tmp_path))
    fails(capsys, tiny.score_arguments(out, model=absent), 2, "absent")
    fails(capsys, tiny.score_arguments(out, task="trivia"), 2, "trivia", "multiple_choice")


def test_an_encoding_that_lacks_a_character_gets_an_escape(monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("fishjax.cli.tasks.run", lambda args: print("\u00e9 \u2207p") or 0)
    assert main(["tasks"]) == 0
    assert written.getvalue() == b"\xe9 \\u2207p\n"
    assert stream.errors == "strict"


def bad_checkpoint(change, tiny, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tok.bin").write_bytes((tiny.model / "tok.bin").read_bytes())
    (folder / "tiny.bin").write_bytes(change((tiny.model / "tiny.bin").read_bytes()))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data[:-4],
        lambda data: b"PK\x03\x04" + bytes(500),
        lambda data: data[:28] + np.float32([np.nan]).tobytes() + data[32:],
    ],
)
def test_bad_checkpoints(tiny, tmp_path, capsys, change):
    model = bad_checkpoint(change, tiny, tmp_path)
    fails(capsys, tiny.score_arguments(tmp_path / "out", model=model), 2, "tiny.bin")


def test_a_missing_tokenizer(tiny, tmp_path, capsys):
    model = bad_checkpoint(bytes, tiny, tmp_path)
    (model / "tok.bin").unlink()
    fails(capsys, tiny.score_arguments(tmp_path / "out", model=model), 2, "tokenizer")


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"limit": 3}, "limit is None there and 3 here"),
        ({"seed": 4}, "seed is 0 there and 4 here"),
        ({"dtype": "bfloat16"}, "dtype is 'float32'"),
        ({"batch_tokens": 50}, "batch_tokens is 48 there and 50 here"),
    ],
)
def test_a_directory_with_other_settings(finished_copy, tiny, capsys, changes, fragment):
    before = {p.name: p.read_bytes() for p in finished_copy.iterdir() if p.is_file()}
    arguments = tiny.score_arguments(finished_copy, "--per-token", **changes)
    fails(capsys, arguments, 2, "holds another run", fragment)
    assert {p.name: p.read_bytes() for p in finished_copy.iterdir() if p.is_file()} == before


def test_a_directory_of_another_model_or_file(
    finished_copy, tiny, tmp_path, capsys, make_model, jsonl
):
    other = make_model(tmp_path / "other", num_layers=1)
    arguments = tiny.score_arguments(finished_copy, "--per-token", model=other)
    fails(capsys, arguments, 2, "model_sha256")
    data = jsonl(tmp_path / "other.jsonl", tiny.questions[::-1])
    arguments = tiny.score_arguments(finished_copy, "--per-token", data=data)
    fails(capsys, arguments, 2, "data_sha256")


def test_a_directory_with_foreign_files(tiny, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    fails(capsys, tiny.score_arguments(tmp_path), 2, "thesis.txt")
    fails(capsys, tiny.score_arguments(tmp_path / "thesis.txt"), 2, "is a file")
    fails(capsys, tiny.score_arguments(tmp_path / "thesis.txt" / "x"), 1, "cannot write")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(score, "Programs", FakePrograms)


def test_a_read_only_disk_is_one_line(tiny, tmp_path, monkeypatch, capsys):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    fails(capsys, tiny.score_arguments(tmp_path / "out"), 1, "Read-only file system")


def test_too_little_memory_is_a_warning_that_names_the_flag(tiny, tmp_path, capsys, fake):
    assert main(tiny.score_arguments(tmp_path / "out", "--quiet", "--no-plots")) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: ")
    assert "--batch-tokens" in error


def test_running_out_of_memory_is_one_line(tiny, tmp_path, monkeypatch, capsys, fake):
    def exhausted(self, batch):
        raise programs._run_error(MemoryError())

    monkeypatch.setattr(FakePrograms, "__call__", exhausted)
    monkeypatch.setattr(FakePrograms, "memory_bytes", lambda self, batch: None)
    arguments = tiny.score_arguments(tmp_path / "out", "--quiet")
    fails(capsys, arguments, 1, "out of memory", "--batch-tokens")


def test_ctrl_c_says_how_to_resume(tiny, tmp_path, monkeypatch, capsys, fake):
    def interrupted(self, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakePrograms, "__call__", interrupted)
    monkeypatch.setattr(FakePrograms, "memory_bytes", lambda self, batch: None)
    fails(capsys, tiny.score_arguments(tmp_path / "out", "--quiet"), 130, "resumes")
