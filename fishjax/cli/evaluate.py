"""`fishjax evaluate`: metrics, plots and the table from rows alone, without a model."""

import argparse
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from rich.console import Console

from fishjax import io
from fishjax.cli.columns import Columns, read_columns
from fishjax.cli.combination import combination_line, measure_combination, names_to_combine
from fishjax.cli.environment import platform_facts, versions
from fishjax.cli.errors import InputError
from fishjax.cli.messages import results_table, summary
from fishjax.cli.non_finite import warn_non_finite
from fishjax.cli.report import measure
from fishjax.cli.text import TEXT_TASK, text_summary, write_documents

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
            directory, None, with_plots=not args.no_plots, quiet=args.quiet, combine=args.combine
        )
    return 0


def evaluate_directory(
    directory: pathlib.Path,
    effort: Mapping[str, Any] | None,
    *,
    with_plots: bool,
    quiet: bool,
    combine: Sequence[str] | None = None,
) -> None:
    """Writes `metrics.json` and the plots of a finished run and prints its table.

    Args:
      directory: of the run, locked by the caller.
      effort: what the run took. `None` keeps what `metrics.json` says already.
      with_plots: whether to draw.
      quiet: whether to print nothing.
      combine: scores to combine with the help of labels, none named for the usual ones; `None`
        combines nothing.

    Raises:
      RowsError: the rows are not complete or cannot be read.
      InputError: a score to combine is not in the rows.
      OutputError: writing failed.
    """
    manifest = io.read_manifest(directory)
    columns = read_columns(directory, _num_questions(directory, manifest))
    seed = manifest["settings"]["seed"]
    metrics = measure(columns, seed=seed) | {
        "schema_version": io.SCHEMA_VERSION,
        "seed": seed,
        "run": {name: manifest[name] for name in ("settings", "model", "data")},
        "evaluated_with": {"versions": versions(), "platform": platform_facts()},
        "effort": _kept_effort(directory) if effort is None else dict(effort),
    }
    if manifest["settings"]["task"] == TEXT_TASK:
        rows = io.read_rows(directory / io.ROWS_NAME, manifest["num_questions"])
        metrics["text"] = write_documents(directory, rows)
    if combine is not None:
        names, ids = names_to_combine(combine, columns), _ids(directory, manifest)
        metrics["combination"] = measure_combination(columns, names, ids, seed=seed)
    text = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    io.write_atomic(directory / io.METRICS_NAME, text.encode())
    if with_plots:
        _write_plots(directory, columns, metrics)
    console = Console(quiet=quiet)
    if "text" in metrics:
        console.print(text_summary(metrics["text"]), highlight=False, soft_wrap=True)
    else:
        console.print(results_table(metrics))
        console.print(summary(metrics), highlight=False, soft_wrap=True)
    if "combination" in metrics:
        line = combination_line(metrics["combination"])
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"written to {directory}", highlight=False, soft_wrap=True)
    if metrics["num_non_finite"]:
        warn_non_finite(io.read_rows(directory / io.ROWS_NAME, manifest["num_questions"]))


def _ids(directory: pathlib.Path, manifest: Mapping[str, Any]) -> list[str]:
    """Of the questions in the columns."""
    path = directory / io.ROWS_NAME
    rows = enumerate(io.read_rows(path, manifest["num_questions"]), start=1)
    ids = []
    for number, row in rows:
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


def _write_plots(directory: pathlib.Path, columns: Columns, metrics: Mapping[str, Any]) -> None:
    try:
        plots = importlib.import_module("fishjax.plots")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        Console(stderr=True).print(
            "no plots: matplotlib is not installed (pip install 'fishjax\\[plots]')",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
    folder = directory / io.PLOTS_NAME
    io.make_directory(folder)
    balance, run = metrics["class_balance"], metrics["run"]
    title = (
        f"{run['model']} on {run['settings']['task']}: n = {metrics['num_scored']}, "
        f"{balance['correct']} correct, {balance['incorrect']} wrong"
    )
    for name, draw in _PLOTS.items():
        io.write_atomic(folder / name, draw(plots, columns, metrics, title))


def _auroc(plots: ModuleType, columns: Columns, metrics: Mapping[str, Any], title: str) -> bytes:
    del columns
    entries = {n: e for n, e in metrics["scores"].items() if e["auroc"] is not None}
    bars = [plots.AurocBar(name, e["auroc"], *e["interval"]) for name, e in entries.items()]
    return plots.auroc_plot(bars, title=title)


def _uncertainty(
    plots: ModuleType, columns: Columns, metrics: Mapping[str, Any], title: str
) -> bytes:
    del metrics
    none = np.empty(0)
    return plots.uncertainty_plot(
        *(columns.scores.get(name, none) for name in columns.pair),
        columns.correct,
        title=title,
    )


def _hot_spots(
    plots: ModuleType, columns: Columns, metrics: Mapping[str, Any], title: str
) -> bytes:
    del metrics
    shares = {path: np.asarray(share.mean(axis=0)) for path, share in columns.shares.items()}
    return plots.hot_spots_plot(shares, title=title)


_PLOTS: Mapping[str, Callable[[ModuleType, Columns, Mapping[str, Any], str], bytes]] = {
    "auroc.png": _auroc,
    "epistemic_aleatoric.png": _uncertainty,
    "hot_spots.png": _hot_spots,
}
