"""`fishjax demo`: scores the bundled world live and says what was found over five trainings.

The question sets are scored with the shipped checkpoint by `fishjax score` itself; the other
training seeds come from stored rows of the same command. What is computed, and why, is in
`fishjax.cli.demo_statistics`.
"""

import argparse
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

from fishjax import bundled, io
from fishjax.cli.demo_columns import chosen_columns
from fishjax.cli.demo_plot import save_heat_maps
from fishjax.cli.demo_report import compute_report, conclusions, print_report
from fishjax.cli.demo_statistics import Estimate, Scored
from fishjax.cli.extras import import_plots
from fishjax.cli.main import main

__all__ = ["REPORT_NAME", "run"]

REPORT_NAME, HEAT_MAPS_NAME = "report.json", "heat_maps.png"

_EXPLANATION = """\
A synthetic world in plain English: facts stated 0 to 64 times in the training text (exposure), \
with values in ratios from 100/0 to 50/50 (conflict). recall: {recall} uncontested facts; \
conflict: {conflict} contested ones, whose gold answer is drawn from the ratio. {seeds} training \
seeds (seed {live} scored live, {stored} from stored rows).
Intervals are Student's t over training seeds (n = {seeds}): how much another training run would \
differ on these questions, not another draw of the world; not corrected for being many.
With two choices p(1-p) and the maximum probability order questions alike, and epistemic carries \
its square: plain epistemic ~ exposure proves nothing. "best possible": an \
oracle that knows the ratios ranks the answers the model gave, over all draws of the gold answers; \
"realised": on the draw used here; "majority answers": the same for a model that always answers \
with the majority value; "known exposure": ranking by the number of mentions."""


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace (`out`, `no_plots`, `quiet`) in, exit status out."""
    start = time.perf_counter()
    out, console = pathlib.Path(args.out), Console(quiet=args.quiet)
    manifest = bundled.read_manifest()
    names = manifest["question_sets"]
    # Looked at once: each of the four runs would say it again.
    with_plots = not args.no_plots and import_plots() is not None
    status = _score_sets(out, names, with_plots, console)
    if status:
        return status
    questions = {name: bundled.read_questions(name) for name in names}
    columns = {manifest["shipped_seed"]: _live_columns(out, questions)}
    columns |= bundled.read_stored_scores()
    seeds = [
        {name: Scored.from_columns(questions[name], sets[name]) for name in names}
        for sets in columns.values()
    ]
    report = compute_report(seeds)
    console.print(_explanation(list(columns), questions), highlight=False, soft_wrap=True)
    print_report(report, console)
    console.print(_accuracy_line(seeds), highlight=False, soft_wrap=True)
    document = {"seeds": list(columns), "report": report, "conclusions": conclusions(report)}
    io.write_atomic(out / REPORT_NAME, (io.dumps(_plain(document)) + "\n").encode())
    if with_plots:
        save_heat_maps(seeds, out / HEAT_MAPS_NAME)
    console.print(f"written to {out} in {time.perf_counter() - start:.0f} s", highlight=False)
    return 0


def _score_sets(out: pathlib.Path, names: list[str], with_plots: bool, console: Console) -> int:
    """Runs `fishjax score` on every set; the first exit status that is not 0, else 0."""
    options = ["--quiet", *([] if with_plots else ["--no-plots"])]
    with bundled.world_directory() as world:
        for name in names:
            begun = time.perf_counter()
            paths = ["--model", str(world), "--data", str(world / f"{name}.jsonl")]
            command = ["score", "--task", "multiple_choice", *paths, "--out", str(out / name)]
            status = main([*command, *options])
            if status:
                return status
            seconds = time.perf_counter() - begun
            console.print(f"scored {name} in {seconds:.1f} s: {out / name}", highlight=False)
    return 0


def _explanation(seeds: list[int], questions: Mapping[str, list[dict[str, Any]]]) -> str:
    live, *stored = seeds
    return _EXPLANATION.format(
        seeds=len(seeds),
        live=live,
        stored=", ".join(map(str, stored)),
        recall=len(questions["recall_2"]),
        conflict=len(questions["conflict_2"]),
    )


def _live_columns(
    out: pathlib.Path, questions: Mapping[str, list[dict[str, Any]]]
) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: chosen_columns(io.read_rows(out / name / io.ROWS_NAME, len(records)))
        for name, records in questions.items()
    }


def _accuracy_line(seeds: list[dict[str, Scored]]) -> str:
    """The learning curve by exposure: uncontested facts, 4 choices, mean over the seeds."""
    sets = [scored["recall_4"] for scored in seeds]
    cells = []
    for exposure in np.unique(sets[0].exposure):
        accuracy = np.mean([s.correct[s.exposure == exposure].mean() for s in sets])
        cells.append(f"{exposure:g}: {accuracy:.2f}")
    return "Accuracy on recall, 4 choices (chance 0.25), by exposure: " + ", ".join(cells) + "."


def _plain(value: Any) -> Any:
    """Estimates as dictionaries, so that the report is plain JSON."""
    if isinstance(value, Estimate):
        return {**value._asdict(), "values": list(value.values)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
