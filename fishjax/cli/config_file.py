"""Options from a TOML file, which the command line overrides; options of a run as such a file."""

import argparse
import contextlib
import json
import pathlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fishjax import io
from fishjax.cli.errors import InputError

__all__ = ["apply_config", "open_directory"]

_NO_OPTIONS = frozenset({"action", "config", "module"})


def apply_config(parsers: Mapping[str, argparse.ArgumentParser], argv: Sequence[str]) -> None:
    """Makes the options of `--config FILE` the defaults of the command that is called.

    Keys are option names without the dashes in front, `batch-tokens` or `batch_tokens`.

    Raises:
      InputError: the file cannot be read, or has an option that the command lacks or a value
        that it refuses.
    """
    parser = parsers.get(argv[0]) if argv else None
    file = _config_of(argv)
    if parser is None or file is None:
        return
    actions = {a.dest: a for a in parser._actions if a.option_strings and a.dest != "config"}
    for key, value in _read(file).items():
        name = key.replace("-", "_")
        if name not in actions or name == "help":
            known = ", ".join(sorted(n.replace("_", "-") for n in actions if n != "help"))
            raise InputError(f"{file}: {key!r} is no option of {argv[0]}: expected {known}")
        action = actions[name]
        action.default, action.required = _converted(action, value, f"{file}: {key}"), False


@contextlib.contextmanager
def open_directory(args: argparse.Namespace, manifest: Mapping[str, Any]) -> Iterator[pathlib.Path]:
    """`io.open_run` of `--out`, with the options of this start in `config.toml`.

    `--config` reads that file: it goes on with the run, or, with another `--out`, repeats it.

    Raises:
      RunDirectoryError: as `io.open_run`.
      OutputError: likewise.
    """
    directory = pathlib.Path(args.out)
    options = {name: value for name, value in vars(args).items() if name not in _NO_OPTIONS}
    lines = [
        f"{name.replace('_', '-')} = {_toml(value)}\n"
        for name, value in sorted(options.items())
        if value is not None
    ]
    with io.open_run(directory, manifest):
        text = "".join(lines).encode(errors="backslashreplace")  # of paths that are no Unicode
        io.write_atomic(directory / io.CONFIG_NAME, text)
        yield directory


def _toml(value: Any) -> str:
    """Texts, numbers and lists as JSON writes them; it leaves one character that TOML escapes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _config_of(argv: Sequence[str]) -> pathlib.Path | None:
    """The last one counts, as of every option."""
    found = None
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            found = pathlib.Path(argv[i + 1])
        if word.startswith("--config="):
            found = pathlib.Path(word.partition("=")[2])
    return found


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: malformed TOML ({error})") from None


def _converted(action: argparse.Action, value: Any, place: str) -> Any:
    """The value as the command line would have given it."""
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise InputError(f"{place} is {value!r}: expected true or false")
        return value
    if action.nargs in ("*", "+"):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise InputError(f"{place} is {value!r}: expected a list of texts")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{place} is {value!r}: expected a text or a number")
    convert: Any = action.type or str
    try:
        found = convert(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(f"{place} is {value!r}: {error}") from None
    if action.choices is not None and found not in action.choices:
        raise InputError(f"{place} is {value!r}: expected one of {', '.join(action.choices)}")
    return found
