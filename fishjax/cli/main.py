"""The command line's parser and its last line of defence."""

import argparse
import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from typing import NoReturn

from fishjax import __version__, io
from fishjax.cli import arguments
from fishjax.cli.config_file import apply_config
from fishjax.cli.errors import InputError, RunError
from fishjax.cli.termination import Terminated, termination_raises

__all__ = ["COMMANDS", "Command", "command_parsers", "main"]

_BAD_INPUT, _FAILED, _INTERRUPTED, _TERMINATED = 2, 1, 130, 143
_STATUS: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((InputError, io.RunDirectoryError, io.RowsError), _BAD_INPUT),
    ((RunError, io.OutputError, OSError), _FAILED),
    ((Terminated,), _TERMINATED),
    ((KeyboardInterrupt,), _INTERRUPTED),
)
_FORESEEN = tuple(kind for kinds, _ in _STATUS for kind in kinds)


@dataclasses.dataclass(frozen=True)
class Command:
    """One subcommand; a new one is one row of `COMMANDS`.

    Attributes:
      name: as typed.
      summary: one line of help.
      add_arguments: adds its arguments to its parser.
      module: has `run(args) -> int`. Imported only when the command runs, so that
        `fishjax --help` does not wait for JAX.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    module: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments without the program's name; `None` takes them from the process.

    Returns:
      0, or 2 for bad input, 1 for a failed run, 130 for Ctrl-C, 143 for SIGTERM. What is foreseen
      ends with one `error:` line on stderr.
    """
    try:
        with termination_raises(), _printable():
            return _run(argv)
    except Terminated as error:  # it came between the end of the command and ours
        return _fail(error)


@contextlib.contextmanager
def _printable() -> Iterator[None]:
    """What the encoding of stdout lacks is written as an escape, as Python does on stderr."""
    stream = sys.stdout
    if not isinstance(stream, TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.reconfigure(errors="strict")


def _run(argv: Sequence[str] | None) -> int:
    try:
        parser, subparsers = _parser()
        apply_config(subparsers, sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(argv)
        return importlib.import_module(args.module).run(args)
    except SystemExit as stop:  # argparse: --help, --version, bad arguments
        return stop.code if isinstance(stop.code, int) else _FAILED
    except BrokenPipeError:
        # The reader of our output is gone; nothing may be written at interpreter exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except _FORESEEN as error:
        return _fail(error)


def _fail(error: BaseException) -> int:
    status = next(status for kinds, status in _STATUS if isinstance(error, kinds))
    message = str(error)
    if isinstance(error, KeyboardInterrupt):
        how = "terminated" if isinstance(error, Terminated) else "interrupted"
        message = f"{how}; the same command run again resumes"
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and that of every command."""
    parser = _Parser(
        prog="fishjax",
        description="How much a language model's predictions would move if its weights moved.",
    )
    parser.add_argument("--version", action="version", version=f"fishjax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for command in COMMANDS:
        # an abbreviated --config would be parsed here and missed by `apply_config`
        sub = commands.add_parser(
            command.name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        sub.add_argument("--config", help="TOML file of options; the command line overrides it")
        command.add_arguments(sub)
        sub.set_defaults(module=command.module)
    return parser, commands.choices


def command_parsers() -> Mapping[str, argparse.ArgumentParser]:
    """Name to parser of every command."""
    return _parser()[1]


COMMANDS: tuple[Command, ...] = (
    Command(
        "score",
        "Uncertainty of every answer of a question file.",
        arguments.score_arguments,
        "fishjax.cli.score",
    ),
    Command(
        "generate",
        "Answers of a model to open questions, greedy and sampled.",
        arguments.generate_arguments,
        "fishjax.cli.generate",
    ),
    Command(
        "tasks",
        "The tasks that score and generate know.",
        arguments.tasks_arguments,
        "fishjax.cli.tasks",
    ),
    Command(
        "evaluate",
        "Recompute metrics, plots and table from a run's rows.",
        arguments.evaluate_arguments,
        "fishjax.cli.evaluate",
    ),
    Command(
        "fisher",
        "Fisher information of a model on a corpus, as a curvature operator.",
        arguments.fisher_arguments,
        "fishjax.cli.fisher",
    ),
    Command(
        "finetune",
        "Adapters or all parameters of a model, trained on a corpus.",
        arguments.finetune_arguments,
        "fishjax.cli.finetune",
    ),
    Command(
        "inspect",
        "Architecture and cost of a checkpoint, or spectra and hot spots of an operator.",
        arguments.inspect_arguments,
        "fishjax.cli.inspect",
    ),
    Command(
        "demo",
        "Score the bundled synthetic world, where both uncertainties are known.",
        arguments.demo_arguments,
        "fishjax.cli.demo",
    ),
)
