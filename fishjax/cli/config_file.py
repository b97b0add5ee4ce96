"""Options from a TOML file; the command line overrides them."""

import argparse
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from fishjax.cli.errors import InputError

__all__ = ["apply_config"]


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
