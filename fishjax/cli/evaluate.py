"""`fishjax evaluate`: metrics, plots and the table from rows alone, without a model."""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from fishjax import io
from fishjax.cli.columns import Columns, read_columns
from fishjax.cli.combination import combination_line, measure_combination, names_to_combine
from fishjax.cli.environment import platform_facts, versions
from fishjax.cli.errors import InputError
from fishjax.cli.groups import groups_table, measure_groups
from fishjax.cli.messages import results_table, summary
from fishjax.cli.non_finite import warn_non_finite
from fishjax.cli.report import measure
from fishjax.cli.run_plots import write_choice_plots, write_text_plots
from fishjax.cli.text import (
    TEXT_TASK,
    document_lines,
    measure_text,
    text_points,
    text_summary,
)

__all__ = ["evaluate_directory", "run"]


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    directory = pathlib.Path(args.directory)
    command = io.read_manifest(directory)["settings"].get("command")
    if command is not None:
        more = ": score its answers with --generations" if command == "generate" else ""
        raise InputError(
            f"{directory} is a run of `fishjax {command}`: expected one of `fishjax score`{more}"
        )
    with io.locked(directory):
        evaluate_directory(
            directory, None, with_plots=not args.no_plots, quiet=args.quiet,
            combine=args.combine, by=args.by or (),
        )  # fmt: skip
    return 0


def evaluate_directory(
    directory: pathlib.Path,
    effort: Mapping[str, Any] | None,
    *,
    with_plots: bool,
    quiet: bool,
    combine: Sequence[str] | None = None,
    by: Sequence[str] = (),
) -> None:
    """Writes `metrics.json` and the plots of a finished run and prints its table.

    Args:
      directory: of the run, locked by the caller.
      effort: what the run took. `None` keeps what `metrics.json` says already.
      with_plots: whether to draw.
      quiet: whether to print nothing.
      combine: scores to combine with the help of labels, none named for the usual ones; `None`
        combines nothing.
      by: fields of the questions' metadata; metrics of every group of questions for each.

    Raises:
      RowsError: the rows are not complete or cannot be read.
      InputError: a score to combine or a field is not in the rows.
      OutputError: writing failed.
    """
    manifest = io.read_manifest(directory)
    columns = read_columns(directory, _num_questions(directory, manifest))
    rows = io.read_rows(directory / io.ROWS_NAME, manifest["num_questions"])
    seed = manifest["settings"]["seed"]
    about = {
        "schema_version": io.SCHEMA_VERSION,
        "seed": seed,
        "run": {name: manifest[name] for name in ("settings", "model", "data")},
        "evaluated_with": {"versions": versions(), "platform": platform_facts()},
        "effort": _kept_effort(directory) if effort is None else dict(effort),
    }
    console = Console(quiet=quiet)
    if manifest["settings"]["task"] == TEXT_TASK:
        if combine is not None or by:
            option = "--by compares" if by else "--combine predicts"
            raise InputError(f"{option} right answers: plain text has none")
        _evaluate_text(directory, columns, rows, about, console, with_plots=with_plots)
    else:
        metrics = measure(columns, seed=seed) | about
        if combine is not None:
            names, ids = names_to_combine(combine, columns), _ids(directory, rows)
            metrics["combination"] = measure_combination(columns, names, ids, seed=seed)
        if by:
            metrics["by"] = {field: measure_groups(columns, rows, field, seed=seed) for field in by}
        _write_metrics(directory, metrics)
        if with_plots:
            write_choice_plots(directory, columns, metrics)
        console.print(results_table(metrics))
        _say(console, summary(metrics))
        if "combination" in metrics:
            _say(console, combination_line(metrics["combination"]))
        for field in by:
            console.print(groups_table(field, metrics["by"][field], columns))
    _say(console, f"written to {directory}")
    warn_non_finite(rows)


def _evaluate_text(
    directory: pathlib.Path,
    columns: Columns,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    console: Console,
    *,
    with_plots: bool,
) -> None:
    """Of a run over plain text, where nothing is right or wrong."""
    try:
        documents, points = document_lines(rows), text_points(rows)
    except (KeyError, TypeError, ValueError) as error:
        path = directory / io.ROWS_NAME
        raise io.RowsError(f"{path}: not rows of plain text ({error!r})") from None
    text = "".join(io.dumps(line) + "\n" for line in documents)
    io.write_atomic(directory / io.DOCUMENTS_NAME, text.encode())
    metrics = {"text": measure_text(rows, documents), **about}
    _write_metrics(directory, metrics)
    if with_plots:
        write_text_plots(directory, columns, metrics, documents, points)
    _say(console, text_summary(metrics["text"]))


def _write_metrics(directory: pathlib.Path, metrics: Mapping[str, Any]) -> None:
    text = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    io.write_atomic(directory / io.METRICS_NAME, text.encode())


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def _ids(directory: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the questions in the columns."""
    path, ids = directory / io.ROWS_NAME, []
    for number, row in enumerate(rows, start=1):
        name = row.get("id")
        if not isinstance(name, str):
            raise io.RowsError(f"{path}, line {number}: id is {name!r}: expected a text")
        ids += [name] * (row["status"] == "ok")
    return ids


def _num_questions(directory: pathlib.Path, manifest: Mapping[str, Any]) -> int:
    settings = manifest["settings"]
    names = ("num_questions", "model", "data")
    missing = [name for name in names if name not in manifest] + ["seed"] * ("seed" not in settings)
    if missing or type(manifest["num_questions"]) is not int or type(settings["seed"]) is not int:
        path = directory / io.MANIFEST_NAME
        raise io.RowsError(f"{path} is not complete ({', '.join(missing) or 'wrong types'})")
    return manifest["num_questions"]


def _kept_effort(directory: pathlib.Path) -> Any:
    """The times of the run that made the rows; `None` if its metrics are lost."""
    try:
        return json.loads((directory / io.METRICS_NAME).read_bytes())["effort"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
