"""What a run says while it goes: the plan before the start, progress, the table at the end."""

from collections.abc import Mapping
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fishjax.cli.environment import available_bytes, format_bytes
from fishjax.cli.job import Job
from fishjax.cli.programs import Programs, batch_shape, num_read_tokens
from fishjax.cli.text import TEXT_TASK

__all__ = ["announce", "progress_bar", "results_table", "summary"]


def announce(job: Job, done: int, programs: Programs, console: Console) -> None:
    """Prints the plan and the memory estimate; warns where a batch may not fit.

    The largest remaining batch is compiled here for its estimate, and the program is kept.
    """
    remaining = job.batches[done:]
    largest = max(remaining, key=num_read_tokens)
    real = sum(job.num_tokens)
    padded = sum(num_read_tokens(batch) for batch in job.batches)
    truncated = sum(fact.truncated for fact in job.facts)
    answers = sum(len(fact.labels) for fact in job.facts)
    shapes = len({batch_shape(batch) for batch in job.batches})
    is_text = job.manifest["settings"]["task"] == TEXT_TASK
    unit = "windows" if is_text else "questions"
    counted = f"{len(job.facts)} {unit}" + ("" if is_text else f", {answers} answers")
    padding = 100 * (padded - real) / max(padded, 1)
    console.print(
        f"plan: {counted}, {real} tokens "
        f"({padding:.0f} % of what is read is padding) in {len(job.batches)} batches of "
        f"{shapes} shapes; {truncated} {unit} truncated",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if done:
        console.print(f"resuming after {done} of {len(job.batches)} batches", highlight=False)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(job.model.params))
    needed, available = programs.memory_bytes(largest), available_bytes()
    room = "unknown" if available is None else format_bytes(available)
    estimate = "unknown" if needed is None else format_bytes(needed)
    console.print(
        f"memory: weights {format_bytes(weights)}, largest batch {estimate}, available {room}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if needed is not None and available is not None and needed > available:
        # A warning is shown even to those who asked for quiet.
        Console(stderr=True).print(
            f"warning: the largest batch needs about {format_bytes(needed)} and {room} is "
            "available: lower --batch-tokens (in a new directory)",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def progress_bar(console: Console) -> Progress:
    """Progress with the time left; silent on a quiet console."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=console.quiet,
    )


def summary(metrics: Mapping[str, Any]) -> str:
    """Counts and accuracies in one line."""
    parts = [f"{metrics['num_questions']} questions"]
    for name in ("num_non_finite", "num_truncated", "num_ties"):
        if metrics[name]:
            parts.append(f"{metrics[name]} {name.removeprefix('num_').replace('_', '-')}")
    for name in ("accuracy", "acc_norm", "acc_bytes", "mc2"):
        if metrics[name] is not None:
            parts.append(f"{name} {metrics[name]:.3f}")
    return ", ".join(parts)


def results_table(metrics: Mapping[str, Any]) -> Table:
    """Every score's AUROC, best first."""
    balance = metrics["class_balance"]
    table = Table(
        title=f"AUROC of predicting a correct answer ({balance['correct']} correct, "
        f"{balance['incorrect']} wrong)"
    )
    table.add_column("score")
    table.add_column("AUROC", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("higher means")
    scores = metrics["scores"].items()
    for name, entry in sorted(scores, key=lambda item: -(item[1]["auroc"] or 0.0)):
        if entry["auroc"] is None:
            table.add_row(name, "–", "–", entry["direction"])
            continue
        low, high = entry["interval"]
        table.add_row(
            name,
            f"{entry['auroc']:.3f}",
            f"{low:.3f} to {high:.3f}",
            entry["direction"],
        )
    if "combination" in metrics:
        table.add_section()
        table.add_row(*_combination_row(metrics["combination"]))
    return table


def _combination_row(combination: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Labels went in: said in the table, so that nobody takes it for a score."""
    # in two lines, so that no column of the other rows gets narrower
    name = f"combination (supervised,\n{combination['num_folds']}-fold cross-validated)"
    means = "more confident"
    if combination["auroc"] is None:
        return name, "–", "–", means
    low, high = combination["interval"]
    return name, f"{combination['auroc']:.3f}", f"{low:.3f} to {high:.3f}", means
