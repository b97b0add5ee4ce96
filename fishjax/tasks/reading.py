"""Text files, plain or gzip, as records whose errors name the file and line."""

import csv
import gzip
import io
import json
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .questions import TaskError

__all__ = [
    "file_kind",
    "is_index",
    "read_json",
    "read_jsonl",
    "read_lines_or_list",
    "read_table",
    "require_text",
    "unquoted",
]

GZIP_MAGIC = b"\x1f\x8b"
_MOST_SHOWN = 200
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


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
        raise TaskError(f"{path} is empty: expected questions or text")
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
                raise TaskError(
                    f"{place}: {type(record).__name__}: expected a JSON object, one a line"
                )
            yield place, number, record


def read_lines_or_list(path: pathlib.Path) -> Any:
    """The objects of a jsonl, or whatever a JSON document holds, by the file's name."""
    if file_kind(path) == ".jsonl":
        return [record for _, _, record in read_jsonl(path)]
    return read_json(path)


def read_table(
    path: pathlib.Path, columns: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields (place, row number from 1, row) of a csv or tsv with a header, or of a jsonl.

    Which of the three is said by the file's name. Blank lines are no rows.

    Args:
      path: of the file, plain or gzip.
      columns: what must be there, with the names under which it is published; the first that the
        file has is used, and the row has it under the key of this mapping.

    Raises:
      TaskError: a column is missing or occurs twice, a row has too few or many fields, or is
        malformed.
    """
    if file_kind(path) == ".jsonl":
        for place, number, record in read_jsonl(path):
            yield place, number, _renamed(record, _found(list(record), columns, place))
        return
    header: list[str] = []
    found: dict[str, str] = {}
    count = 0
    for place, row in _delimited(path):
        if not header:
            header, found = row, _found(row, columns, place)
            if twice := [name for name in dict.fromkeys(row) if row.count(name) > 1]:
                raise TaskError(f"{place}: the column {twice[0]!r} occurs twice: rename one")
        elif len(row) != len(header):
            raise TaskError(f"{place}: {len(row)} fields: expected {len(header)}")
        else:
            count += 1
            yield place, count, _renamed(dict(zip(header, row, strict=True)), found)


def file_kind(path: pathlib.Path) -> str:
    """The ending of its name, whether it is compressed or not: ".csv", ".tsv", ".jsonl"."""
    return pathlib.Path(path.name.removesuffix(".gz")).suffix


def _delimited(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """(place, fields) of every line that is not blank.

    In a tsv a quotation mark is a character like any other, as in GLUE's files; a field that is
    quoted as a whole, as pandas writes it, is unquoted.
    """
    text, tabs = io.StringIO(read_text(path), newline=""), file_kind(path) == ".tsv"
    if tabs:
        reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(text, strict=True)
    try:
        for row in reader:
            if row:
                fields = list(map(unquoted, row)) if tabs else row
                yield f"{path}, line {reader.line_num}", fields
    except csv.Error as error:
        raise TaskError(f"{path}, line {reader.line_num}: malformed csv ({error})") from None


def _found(there: list[str], columns: Mapping[str, Sequence[str]], place: str) -> dict[str, str]:
    """Which column of the file is which."""
    found = {name: next((n for n in known if n in there), "") for name, known in columns.items()}
    missing = [name for name, actual in found.items() if not actual]
    if missing:
        others = [f"{n} as {', '.join(columns[n][1:])}" for n in missing if columns[n][1:]]
        also = f" (known also: {'; '.join(others)})" if others else ""
        raise TaskError(f"{place}: columns {_short(there)} lack {missing}{also}")
    return found


def _renamed(row: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    used = set(found.values())
    others = {name: value for name, value in row.items() if name not in used}
    return others | {name: row[actual] for name, actual in found.items()}


def unquoted(text: str) -> str:
    """Undoes csv quoting of a whole field; text in plain quotation marks keeps them."""
    if '""' in text and _QUOTED.fullmatch(text):
        return text[1:-1].replace('""', '"')
    return text


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
