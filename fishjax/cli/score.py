"""`fishjax score`: from a checkpoint and a question file to rows, metrics and plots."""

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from fishjax import io
from fishjax.cli.config_file import open_directory
from fishjax.cli.environment import peak_memory
from fishjax.cli.errors import InputError
from fishjax.cli.evaluate import evaluate_directory
from fishjax.cli.job import Job, Settings, prepare_job
from fishjax.cli.messages import announce, progress_bar
from fishjax.cli.programs import Programs, num_read_tokens
from fishjax.cli.step import StepOutputs, build_step
from fishjax.cli.text import TEXT_TASK
from fishjax.scores import LOGARITHMIC, SCORES
from fishjax.tasks import BatchPlan

__all__ = ["batch_rows", "run"]

_QUESTION_SCORES = frozenset(score.name for score in SCORES if not score.per_answer)


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    start = time.perf_counter()
    console = Console(stderr=True, quiet=args.quiet)
    if args.generations is None and (args.task is None or args.data is None):
        raise InputError("expected --task and --data, or --generations (see fishjax score --help)")
    of_prompts = (args.task, args.data, args.shots, args.shots_data, args.chat)
    if args.generations is not None and any(of_prompts):
        raise InputError("--generations has its own task and prompts: leave out the other options")
    if args.task != TEXT_TASK and (args.stride or args.max_characters):
        raise InputError("--stride and --max-characters are of plain text: expected --task text")
    settings = Settings(
        model=pathlib.Path(args.model),
        task=args.task or "",
        data=pathlib.Path(args.data or ""),
        limit=args.limit,
        seed=args.seed,
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
        per_token=args.per_token,
        mesh=args.mesh,
        shots=args.shots,
        shots_data=None if args.shots_data is None else pathlib.Path(args.shots_data),
        chat=args.chat,
        stride=args.stride,
        adapter=None if args.adapter is None else pathlib.Path(args.adapter),
        parameters=args.parameters or (None if args.adapter is None else "*_lora_*"),
        max_characters=args.max_characters,
        generations=None if args.generations is None else pathlib.Path(args.generations),
    )
    job = prepare_job(settings)
    with open_directory(args, job.manifest) as directory:
        effort = _score(job, directory / io.ROWS_NAME, settings, console)
        if effort is not None:
            effort["wall_seconds"] = round(time.perf_counter() - start, 3)
        evaluate_directory(directory, effort, with_plots=not args.no_plots, quiet=args.quiet)
    return 0


def _score(
    job: Job, path: pathlib.Path, settings: Settings, console: Console
) -> dict[str, Any] | None:
    """Brings the row file to its end; what it took, or `None` if nothing was left to do."""
    done = io.recover_rows(path, job.order)
    remaining = list(zip(job.batches[done:], job.order[done:], strict=True))
    if not remaining:
        console.print("all rows are there already; only metrics and plots are computed")
        io.finish_rows(path)
        return None
    step = build_step(
        job.model.apply_fn, with_token_scores=settings.per_token, parameters=settings.parameters
    )
    programs = Programs(step, job.model.params, job.mesh)
    announce(job, done, programs, console)
    seconds = 0.0
    with progress_bar(console) as progress:
        bar = progress.add_task("scoring", total=sum(num_read_tokens(b) for b, _ in remaining))
        for batch, _ in remaining:
            begun, compiled = time.perf_counter(), programs.compile_seconds
            outputs = programs(batch)
            seconds += time.perf_counter() - begun - (programs.compile_seconds - compiled)
            io.append_batch(
                path,
                batch_rows(
                    job.facts,
                    batch,
                    outputs,
                    job.scores,
                    with_tokens=settings.per_token and settings.task == TEXT_TASK,
                ),
            )
            progress.advance(bar, num_read_tokens(batch))
    io.finish_rows(path)
    tokens = sum(job.num_tokens[i] for _, indices in remaining for i in indices)
    return {
        "compile_seconds": round(programs.compile_seconds, 3),
        "scoring_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "resumed_after_batches": done,
        "peak_memory": peak_memory(),
    }


def batch_rows(
    facts: list[io.QuestionFacts],
    batch: BatchPlan,
    outputs: StepOutputs,
    scores: Sequence[dict[str, float]] = (),
    *,
    with_tokens: bool = False,
) -> list[dict[str, Any]]:
    """The rows of a batch's real questions, in the batch's order; `scores` are joined to them.

    With tokens, a row also has what every token of the chosen answer gives.
    """
    rows = []
    for place, index in enumerate(batch.indices):
        if index < 0:
            continue
        count = len(facts[index].labels)

        def of_answers(array: np.ndarray, place: int = place, count: int = count) -> np.ndarray:
            return array[place, :count]

        values = io.QuestionValues(
            log_likelihoods=of_answers(np.asarray(outputs.log_likelihoods)),
            log_probabilities=of_answers(np.asarray(outputs.log_probabilities)),
            finite=bool(outputs.finite[place]),
            chosen=int(outputs.chosen[place]),
            tied=bool(outputs.tied[place]),
            answer_scores={
                name: of_answers(np.asarray(values))
                for name, values in outputs.scores.items()
                if name not in _QUESTION_SCORES
            },
            question_scores={
                name: np.asarray(values)[place, 0]
                for name, values in outputs.scores.items()
                if name in _QUESTION_SCORES
            }
            | {name: np.asarray(values)[place] for name, values in outputs.token_scores.items()}
            | {n: np.asarray(v) for n, v in (scores[index] if scores else {}).items()},
            shares={path: np.asarray(share)[place] for path, share in outputs.shares.items()},
            logarithmic=LOGARITHMIC,
        )
        row = io.build_row(facts[index], values)
        if with_tokens:
            row["tokens"] = _tokens(outputs, place, facts[index])
        rows.append(row)
    return rows


def _tokens(outputs: StepOutputs, place: int, facts: io.QuestionFacts) -> dict[str, Any]:
    """Log-likelihood and log squared gradient norm of every token of the chosen answer."""
    count = facts.num_tokens[int(outputs.chosen[place])]
    return {
        name: [io.float32_number(x) for x in np.asarray(values)[place, :count]]
        for name, values in outputs.token_values.items()
    }
