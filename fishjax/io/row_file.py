"""`rows.jsonl`: appended a whole batch at a time, resumed at whole batches.

While a run is under way its rows are in the order of the batch plan. When the last batch is
in, the file is rewritten in the order of the questions by one rename. Both orders depend on
the plan alone, so an interrupted and resumed run ends with the same bytes as any other.
"""

import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fishjax.io.canonical import dumps
from fishjax.io.errors import RowsError
from fishjax.io.files import append_durably, truncate_durably, write_atomic

__all__ = ["append_batch", "finish_rows", "read_rows", "recover_rows"]


def append_batch(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends the rows of one batch in one durable write.

    Raises:
      OutputError: writing failed; the file is as before.
    """
    append_durably(path, "".join(dumps(row) + "\n" for row in rows).encode())


def recover_rows(path: pathlib.Path, plan: Sequence[Sequence[int]]) -> int:
    """How many batches of the plan are whole in the file; cuts off what follows them.

    A kill can leave a batch partly written, and its last line torn: that tail is dropped.

    Args:
      path: the row file; it need not exist.
      plan: question indices of every batch, in the order in which they are written.

    Returns:
      The number of whole batches: all of them if the file is finished.

    Raises:
      RowsError: a row before the tail is damaged or out of order; names the line.
      OutputError: the tail cannot be cut off.
    """
    lines = _complete_lines(path)
    order = list(itertools.chain.from_iterable(plan))
    ends = list(itertools.accumulate((len(batch) for batch in plan), initial=0))
    if len(lines) == len(order):
        indices = [_index(line, path, number) for number, line in enumerate(lines, start=1)]
        if indices == sorted(order):
            return len(plan)
    whole = max(batch for batch, end in enumerate(ends) if end <= len(lines))
    if whole and not _has_order(lines[ends[whole - 1] : ends[whole]], plan[whole - 1]):
        whole -= 1  # the last batch never reached the disk as a whole (power loss)
    for number, (line, expected) in enumerate(zip(lines[: ends[whole]], order, strict=False), 1):
        found = _index(line, path, number)
        if found != expected:
            raise RowsError(
                f"{path}, line {number}: question {found} where this run writes {expected}: the "
                "file was changed; restore it or start again in a new directory"
            )
    size = sum(len(line) for line in lines[: ends[whole]])
    if path.exists() and path.stat().st_size > size:
        truncate_durably(path, size)
    return whole


def finish_rows(path: pathlib.Path) -> None:
    """Brings a file with all its rows into the order of the questions.

    Raises:
      OutputError: writing failed; the rows are intact in their old order.
    """
    lines = _complete_lines(path)
    indices = [_index(line, path, number) for number, line in enumerate(lines, start=1)]
    order = sorted(range(len(lines)), key=indices.__getitem__)
    if order != list(range(len(lines))):
        write_atomic(path, b"".join(lines[i] for i in order))


def read_rows(path: pathlib.Path, num_questions: int) -> list[dict[str, Any]]:
    """All rows of a finished run, in the order of the questions.

    Raises:
      RowsError: the file is missing, unfinished or damaged; names the line.
    """
    advice = "run the same command again to resume it"
    if not path.exists():
        raise RowsError(f"{path} does not exist: {advice}")
    lines = _complete_lines(path, keep_torn=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line, path, number)
        if not line.endswith(b"\n"):
            raise RowsError(f"{path}, line {number}: the line is not complete: {advice}")
        rows.append(row)
    found = [row["index"] for row in rows]
    if len(found) < num_questions:
        raise RowsError(f"{path} has {len(found)} of {num_questions} rows: {advice}")
    for number, index in enumerate(found):
        if index != number:
            raise RowsError(
                f"{path}, line {number + 1}: index {index}: expected {number}; {advice}"
            )
    return rows


def _complete_lines(path: pathlib.Path, *, keep_torn: bool = False) -> list[bytes]:
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RowsError(f"cannot read {path}: {error.strerror}") from None
    lines = data.split(b"\n")
    torn = lines.pop()
    complete = [line + b"\n" for line in lines]
    return [*complete, torn] if keep_torn and torn else complete


def _has_order(lines: Sequence[bytes], batch: Sequence[int]) -> bool:
    try:
        return [json.loads(line)["index"] for line in lines] == list(batch)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _index(line: bytes, path: pathlib.Path, number: int) -> int:
    return _parse(line, path, number)["index"]


def _parse(line: bytes, path: pathlib.Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        raise RowsError(f"{path}, line {number}: malformed row ({reason})") from None
    if not isinstance(row, dict) or type(row.get("index")) is not int:
        raise RowsError(f"{path}, line {number}: not a row: it has no integer `index`")
    return row
