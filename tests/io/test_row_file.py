"""Resuming after a cut at every byte gives the bytes of an uninterrupted run."""

import json

import pytest

from fishjax import io

PLAN = [[4, 1], [0, 3, 5], [2]]


def rows_of(batch):
    return [{"index": i, "text": "é" * i, "value": i / 3} for i in batch]


def finish(path):
    """What a run does: recover, append what is missing, bring into order."""
    for batch in PLAN[io.recover_rows(path, PLAN) :]:
        io.append_batch(path, rows_of(batch))
    io.finish_rows(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def test_the_finished_file_is_in_question_order(path):
    lines = finish(path).splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(6))
    assert io.recover_rows(path, PLAN) == 3
    assert [row["index"] for row in io.read_rows(path, 6)] == list(range(6))


def test_a_cut_at_every_byte_resumes_to_the_same_bytes(path):
    for batch in PLAN:
        io.append_batch(path, rows_of(batch))
    full = path.read_bytes()
    expected = finish(path)
    for size in range(len(full) + 1):
        path.write_bytes(full[:size])
        assert finish(path) == expected, size


def test_whole_batches_are_kept(path):
    io.append_batch(path, rows_of(PLAN[0]))
    kept = path.read_bytes()
    io.append_batch(path, rows_of(PLAN[1]))
    path.write_bytes(path.read_bytes()[:-1])
    assert io.recover_rows(path, PLAN) == 1
    assert path.read_bytes() == kept


def test_a_last_batch_of_rubbish_is_dropped(path):
    io.append_batch(path, rows_of(PLAN[0]))
    kept = path.read_bytes()
    path.write_bytes(kept + b"\0\0\n\0\n\n")
    assert io.recover_rows(path, PLAN) == 1
    assert path.read_bytes() == kept


def test_damage_before_the_tail_names_its_line(path):
    for batch in PLAN[:2]:
        io.append_batch(path, rows_of(batch))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{broken\n", *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(io.RowsError, match=r"rows\.jsonl, line 2: malformed row"):
        io.recover_rows(path, PLAN)
    path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(io.RowsError, match="line 1: question 1 where this run writes 4"):
        io.recover_rows(path, PLAN)
    assert len(path.read_bytes()) == len(b"".join(lines))
    assert before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"index":0}\n{"index":1', "line 2: malformed row"),
        (b'{"index":0}\n{"index":1}', "line 2: the line is not complete"),
        (b'{"index":0}\n', "has 1 of 2 rows"),
        (b'{"index":1}\n{"index":0}\n', "line 1: index 1: expected 0"),
        (b'{"index":0}\n[1]\n', "line 2: not a row"),
        (b'{"index":true}\n', "line 1: not a row"),
        (b'{"index":0}\n\xff\n', "line 2: malformed row"),
        (b"[" * 100_000 + b"\n", "line 1: malformed row"),
    ],
)
def test_reading_refuses_an_unfinished_or_damaged_file(path, text, message):
    path.write_bytes(text)
    with pytest.raises(io.RowsError, match=message):
        io.read_rows(path, 2)


def test_reading_a_missing_file_says_how_to_resume(path):
    with pytest.raises(io.RowsError, match="does not exist: run the same"):
        io.read_rows(path, 2)
