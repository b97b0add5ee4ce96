"""The pictures of a finished run."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fishjax import io
from fishjax.cli.columns import Columns
from fishjax.cli.extras import import_plots
from fishjax.cli.text import TextPoints

__all__ = ["write_choice_plots", "write_text_plots"]

Draw = Callable[[ModuleType], bytes]


def write_choice_plots(
    directory: pathlib.Path, columns: Columns, metrics: Mapping[str, Any]
) -> None:
    """How well each score predicts being right, both uncertainties, hot spots.

    Raises:
      OutputError: writing failed.
    """
    balance = metrics["class_balance"]
    counts = f"n = {metrics['num_scored']}, {balance['correct']} correct"
    title = _title(metrics, f"{counts}, {balance['incorrect']} wrong")
    _write(
        directory,
        {
            "auroc.png": lambda plots: _auroc(plots, metrics, title),
            "epistemic_aleatoric.png": lambda plots: _uncertainty(plots, columns, title),
            "hot_spots.png": lambda plots: _hot_spots(plots, columns, title),
        },
    )


def write_text_plots(
    directory: pathlib.Path,
    columns: Columns,
    metrics: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]],
    points: TextPoints,
) -> None:
    """Uncertainty against perplexity, hot spots, and the hottest window if its tokens are known.

    Args:
      directory: of the run.
      columns: of its windows.
      metrics: with `text`.
      documents: as in `documents.jsonl`.
      points: of the windows.

    Raises:
      OutputError: writing failed.
    """
    text = metrics["text"]
    counts = f"{text['num_documents']} documents, {text['num_tokens']} tokens"
    title = _title(metrics, counts)
    figures: dict[str, Draw] = {
        "perplexity.png": lambda plots: _perplexity(plots, documents, points, title),
        "hot_spots.png": lambda plots: _hot_spots(plots, columns, title),
    }
    if points.hottest is not None:
        name, tokens = points.hottest
        figures["hottest_window.png"] = lambda plots: plots.tokens_plot(
            _floats(tokens["log_likelihoods"]), _floats(tokens["log_squared_norms"]),
            title=f"{title}\nwindow {name}: the most ‖∇ log p‖² per token",
        )  # fmt: skip
    _write(directory, figures)


def _write(directory: pathlib.Path, figures: Mapping[str, Draw]) -> None:
    plots = import_plots()
    if plots is None:
        return
    folder = directory / io.PLOTS_NAME
    io.make_directory(folder)
    for name, draw in figures.items():
        io.write_atomic(folder / name, draw(plots))


def _title(metrics: Mapping[str, Any], counts: str) -> str:
    run = metrics["run"]
    return f"{run['model']} on {run['settings']['task']}: {counts}"


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """Null becomes NaN."""
    return np.array(values, float)


def _auroc(plots: ModuleType, metrics: Mapping[str, Any], title: str) -> bytes:
    entries = {n: e for n, e in metrics["scores"].items() if e["auroc"] is not None}
    bars = [plots.AurocBar(name, e["auroc"], *e["interval"]) for name, e in entries.items()]
    return plots.auroc_plot(bars, title=title)


def _uncertainty(plots: ModuleType, columns: Columns, title: str) -> bytes:
    none = np.empty(0)
    return plots.uncertainty_plot(
        *(columns.scores.get(name, none) for name in columns.pair),
        columns.correct,
        title=title,
    )


def _hot_spots(plots: ModuleType, columns: Columns, title: str) -> bytes:
    shares = {path: np.asarray(share.mean(axis=0)) for path, share in columns.shares.items()}
    return plots.hot_spots_plot(shares, title=title)


def _perplexity(
    plots: ModuleType, documents: Sequence[Mapping[str, Any]], points: TextPoints, title: str
) -> bytes:
    """A point a document; of a single one, a point a window."""
    if len(documents) < 2:
        return plots.perplexity_plot(
            points.log_perplexity, points.log_norm_per_token, title=f"{title}: a point a window"
        )
    tokens = np.array([line["num_tokens"] for line in documents], float)
    log_likelihoods = _floats([line["log_likelihood"] for line in documents])
    norms = _floats([line["log_squared_norm"] for line in documents])
    return plots.perplexity_plot(
        -log_likelihoods / tokens, norms - np.log(tokens), title=f"{title}: a point a document"
    )
