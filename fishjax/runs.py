"""The command line from Python: `runs.score(model=..., task=..., data=..., out=...)`.

Each function takes the options of the command of its name as keyword arguments, with the same
defaults and the same checks, writes the same directory, and raises where the command would print
an error.

Example:
  >>> from fishjax import runs
  >>> directory = runs.score(
  ...     model="stories260K", task="multiple_choice", data="mine.jsonl", out="runs/mine"
  ... )  # doctest: +SKIP
  >>> frame = runs.open_frame(directory)  # doctest: +SKIP
"""

import argparse
import importlib
import pathlib
from typing import Any

from fishjax.cli.main import command_parsers
from fishjax.io import open_frame

__all__ = ["demo", "evaluate", "finetune", "fisher", "generate", "inspect", "open_frame", "score"]


def score(**options: Any) -> pathlib.Path:
    """`fishjax score`: the directory of the run."""
    return _run("score", options)


def generate(**options: Any) -> pathlib.Path:
    """`fishjax generate`: the directory of the run."""
    return _run("generate", options)


def evaluate(**options: Any) -> pathlib.Path:
    """`fishjax evaluate`: the directory of the run."""
    return _run("evaluate", options)


def fisher(**options: Any) -> pathlib.Path:
    """`fishjax fisher`: the directory of the run."""
    return _run("fisher", {"action": None, **options})


def finetune(**options: Any) -> pathlib.Path:
    """`fishjax finetune`: the directory of the run."""
    return _run("finetune", options)


def inspect(**options: Any) -> pathlib.Path:
    """`fishjax inspect`: the path that was inspected."""
    return _run("inspect", options)


def demo(**options: Any) -> pathlib.Path:
    """`fishjax demo`: its directory."""
    return _run("demo", options)


def _run(name: str, options: dict[str, Any]) -> pathlib.Path:
    """Runs a command with the defaults of its parser.

    Raises:
      TypeError: an option is unknown or missing.
      ValueError: it has a value that the command line would refuse.
      Exception: what the command itself raises; see `fishjax.cli.errors` and `fishjax.io`.
    """
    parser = command_parsers()[name]
    actions = {a.dest: a for a in parser._actions if a.dest not in ("help", "config")}
    unknown = sorted(options.keys() - actions.keys())
    if unknown:
        raise TypeError(f"{name} has no option {unknown[0]!r}: expected {', '.join(actions)}")
    missing = [n for n, a in actions.items() if a.required and n not in options and n != "action"]
    if missing:
        raise TypeError(f"{name} needs {', '.join(missing)}")
    values = {n: a.default for n, a in actions.items()} | {
        n: _checked(actions[n], v) for n, v in options.items()
    }
    module = parser.get_default("module")
    importlib.import_module(module).run(argparse.Namespace(**values))
    place = next(values[n] for n in ("out", "directory", "path") if values.get(n) is not None)
    return pathlib.Path(place)


def _checked(action: argparse.Action, value: Any) -> Any:
    """The value as the command line would have given it; `None` is an option left out."""
    if value is None:
        return action.default
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise ValueError(f"{action.dest} is {value!r}: expected True or False")
        return value
    if action.nargs in ("*", "+"):
        return list(map(str, value if isinstance(value, list | tuple) else [value]))
    if isinstance(value, bool | list | tuple):
        raise ValueError(f"{action.dest} is {value!r}: expected one text or number")
    try:
        found: Any = (action.type or str)(str(value))  # type: ignore[operator]
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{action.dest}: {error}") from None
    if action.choices is not None and found not in action.choices:
        raise ValueError(f"{action.dest} is {value!r}: expected one of {list(action.choices)}")
    return found
