"""`fishjax inspect`: a checkpoint's architecture and cost, or an operator's spectra."""

import argparse
import json
import pathlib
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from fishjax import io, operators
from fishjax.cli.environment import format_bytes
from fishjax.cli.errors import InputError
from fishjax.cli.extras import import_plots
from fishjax.cli.inspect_model import inspect_model, is_model
from fishjax.cli.spectra import Spectrum, spectra_of
from fishjax.io.checkpoints import load_tree

__all__ = ["inspect_directory", "run"]

_HOT = 10
_DAMPING = 1e-3  # of the mean eigenvalue, before a two-term form's definiteness is looked at


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    directory = pathlib.Path(args.path)
    if is_model(directory):
        inspect_model(directory, batch=args.batch, length=args.length, quiet=args.quiet)
        return 0
    if not (directory / io.OPERATOR_NAME).is_dir():
        raise InputError(
            f"{directory} holds neither a model nor an operator: expected a checkpoint, or a "
            "finished run of `fishjax fisher`"
        )
    with io.locked(directory):
        inspect_directory(directory, with_plots=not args.no_plots, quiet=args.quiet)
    return 0


def inspect_directory(directory: pathlib.Path, *, with_plots: bool, quiet: bool) -> None:
    """Writes `metrics.json` and the plots of an operator and prints its tables.

    Raises:
      RowsError: the operator cannot be read.
      OutputError: writing failed.
    """
    operator = load_tree(directory / io.OPERATOR_NAME)
    spectra = spectra_of(operator)
    total = float(sum(np.sum(s.trace) for s in spectra.values()))
    summary = {
        "schema_version": io.SCHEMA_VERSION,
        "operator": type(operator).__name__,
        "bytes": sum(int(x.nbytes) for x in jax.tree.leaves(operator)),
        "trace": total,
        "parameters": {path: _facts(s, total) for path, s in spectra.items()},
    }
    if isinstance(operator, operators.Isotropic):
        summary["scale"] = float(operator.scale)
    if isinstance(operator, operators.KroneckerSum) and _two_terms(operator):
        mean = total / sum(s.dimension * max(np.size(s.trace), 1) for s in spectra.values())
        damping = _DAMPING * mean
        damped: Any = operators.pi_damped(operator, damping)
        smallest = operators.indefiniteness(damped)
        summary["indefiniteness"] = {
            "pi_damping": damping,
            "smallest": {path: np.asarray(m, float).tolist() for path, m in smallest.items()},
        }
    text = json.dumps(_finite(summary), indent=2, sort_keys=True, allow_nan=False) + "\n"
    io.write_atomic(directory / io.METRICS_NAME, text.encode())
    if with_plots and spectra:
        _write_plots(directory, spectra, total)
    if not quiet:
        _print(summary, spectra, total)


def _two_terms(operator: operators.KroneckerSum) -> bool:
    return any(len(block.terms) == 2 for block in operator.factors.values())


def _facts(spectrum: Spectrum, total: float) -> dict[str, Any]:
    share = np.asarray(spectrum.trace) / total if total else np.zeros_like(spectrum.trace)
    return {
        "trace_share": np.asarray(share, float).tolist(),
        "largest": np.asarray(spectrum.largest, float).tolist(),
        "smallest": np.asarray(spectrum.smallest, float).tolist(),
        "condition_number": np.asarray(spectrum.condition, float).tolist(),
        "effective_rank": np.asarray(spectrum.effective_rank, float).tolist(),
        "dimension": spectrum.dimension,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: a singular matrix's condition number becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _write_plots(directory: pathlib.Path, spectra: dict[str, Spectrum], total: float) -> None:
    plots = import_plots()
    if plots is None:
        return
    folder = directory / io.PLOTS_NAME
    io.make_directory(folder)
    eigenvalues = {path: s.eigenvalues for path, s in spectra.items()}
    io.write_atomic(folder / "spectra.png", plots.spectra_plot(eigenvalues))
    shares = {path: np.asarray(s.trace / (total or 1.0)) for path, s in spectra.items()}
    title = "Share of the Fisher's trace"
    png = plots.hot_spots_plot(shares, title=title, label="share of the trace")
    io.write_atomic(folder / "hot_spots.png", png)


def _print(summary: dict[str, Any], spectra: dict[str, Spectrum], total: float) -> None:
    console = Console()
    size = f"scale {summary['scale']:.4g}" if "scale" in summary else f"trace {total:.4g}"
    console.print(
        f"{summary['operator']}, {format_bytes(summary['bytes'])}, {size}", highlight=False
    )
    if not spectra:
        return
    table = Table(title="parameters, by their share of the trace")
    table.add_column("parameter", no_wrap=True)
    for name in ("share", "largest", "condition", "effective rank"):
        table.add_column(name, justify="right")
    rows = sorted(spectra.items(), key=lambda item: -float(np.sum(item[1].trace)))
    for path, s in rows:
        stack = "".join(f"[{n}]" for n in np.shape(s.trace))
        table.add_row(
            path + stack.replace("[", "\\["),
            f"{float(np.sum(s.trace)) / (total or 1.0):.1%}",
            f"{float(np.max(s.largest)):.3g}",
            f"{float(np.max(s.condition)):.3g}",
            f"{float(np.mean(s.effective_rank)):.0f} / {s.dimension}",
        )
    console.print(table)
    hot = [
        (float(value), f"{path}[{', '.join(map(str, index))}]" if index else path)
        for path, s in spectra.items()
        for index, value in np.ndenumerate(np.asarray(s.trace, float))
    ]
    top = ", ".join(f"{name} {v / (total or 1.0):.1%}" for v, name in sorted(hot)[::-1][:_HOT])
    console.print(f"hot spots: {top}", highlight=False, soft_wrap=True)
