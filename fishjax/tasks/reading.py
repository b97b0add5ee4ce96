"""Text files, plain or gzip, as records whose errors name the file and line."""

import csv
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

from .questions import TaskError

__all__ = ["is_index", "read_csv", "read_json", "read_jsonl", "require_text"]

GZIP_MAGIC = b"\x1f\x8b"
_MOST_SHOWN = 200


def read_text(path: pathlib.Path) -> str:
    """The whole file as text: UTF-8, with or without a byte-order mark, plain or gzip.

    Raises:
      TaskError: missing, unreadable, empty, damaged gzip, or not UTF-8 (names the line).
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"{path}: damaged gzip file ({error}): copy it again") from None
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from None
    if not text.strip():
        raise TaskError(f"{path} is empty: expected questions")
    return text


def read_json(path: pathlib.Path) -> Any:
    """A JSON document."""
    return parse_json(read_text(path), str(path))


def read_jsonl(path: pathlib.Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields (place, line number, object) for every line that is not blank."""
    # Not splitlines(): it also splits at characters JSON allows inside strings.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            record = parse_json(line, place)
            if not isinstance(record, dict):
                raise TaskError(f"{place}: {type(record).__name__}: expected a JSON object")
            yield place, number, record


def read_csv(path: pathlib.Path, columns: tuple[str, ...]) -> Iterator[tuple[str, int, dict]]:
    """Yields (place, row number from 1, row) of a csv file with a header.

    Raises:
      TaskError: a column is missing, a row has too few or many fields, or is not csv.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] = []
    try:
        for number, row in enumerate(reader):
            place = f"{path}, line {reader.line_num}"
            if number == 0:
                header = row
                missing = [name for name in columns if name not in header]
                if missing:
                    raise TaskError(f"{place}: columns {_short(header)} lack {missing}")
            elif len(row) != len(header):
                raise TaskError(f"{place}: {len(row)} fields: expected {len(header)}")
            else:
                yield place, number, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise TaskError(f"{path}, line {reader.line_num}: malformed csv ({error})") from None


def _short(header: list[str]) -> str:
    """A file that is no csv can have any line on top."""
    shown = str(header)
    return shown if len(shown) < _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."


def parse_json(text: str, place: str) -> Any:
    """Strict JSON: no NaN, no number beyond a float, no repeated keys, no lone surrogates."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # 1e999 is infinite
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if "\n" in text else ""
        raise TaskError(f"{place}: malformed JSON ({where}{error.msg})") from None
    except UnicodeEncodeError:
        raise TaskError(f"{place}: a lone surrogate is not a character") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place}: malformed JSON ({error})") from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} occurs twice")
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def is_index(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_text(value: Any, name: str, place: str) -> str:
    """The value, if it is a string with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"{place}: {name} is {value!r}: expected text that is not blank")
    return value
