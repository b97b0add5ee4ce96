"""`fishjax generate`: answers of a model to open questions, greedy and sampled, resumable."""

import argparse
import pathlib
import time
from typing import Any

import jax
from rich.console import Console

from fishjax import io
from fishjax.cli.asking import Asking
from fishjax.cli.config_file import open_directory
from fishjax.cli.generate_job import GenerateJob, GenerateSettings, prepare_generate_job
from fishjax.cli.messages import progress_bar
from fishjax.cli.non_finite import warn_non_finite
from fishjax.models import Generated, Sampling, generate
from fishjax.tasks import clean_answer, contains_match, exact_match

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    console = Console(stderr=True, quiet=args.quiet)
    sampling = Sampling(args.max_tokens, args.temperature, args.top_p, tuple(args.stop))
    settings = GenerateSettings(
        model=pathlib.Path(args.model),
        task=args.task,
        data=pathlib.Path(args.data),
        limit=args.limit,
        seed=args.seed,
        dtype=args.dtype,
        batch=args.batch,
        samples=args.samples,
        ask=args.ask,
        sampling=sampling,
        shots=args.shots,
        shots_data=None if args.shots_data is None else pathlib.Path(args.shots_data),
        chat=args.chat,
        adapter=None if args.adapter is None else pathlib.Path(args.adapter),
        mesh=args.mesh,
    )
    job = prepare_generate_job(settings)
    asking = Asking(job.model, chat=settings.chat, mesh=job.mesh) if settings.ask else None
    with open_directory(args, job.manifest) as directory:
        _generate(job, settings, asking, directory / io.ROWS_NAME, console)
        rows = io.read_rows(directory / io.ROWS_NAME, len(job.questions))
    _report(rows, args, directory, Console(quiet=args.quiet))
    warn_non_finite(rows)
    return 0


def _generate(
    job: GenerateJob,
    settings: GenerateSettings,
    asking: Asking | None,
    path: pathlib.Path,
    console: Console,
) -> None:
    """Brings the row file to its end."""
    done = io.recover_rows(path, job.batches)
    if done:
        console.print(f"resuming after {done} of {len(job.batches)} batches", highlight=False)
    begun = time.perf_counter()
    with progress_bar(console) as progress:
        bar = progress.add_task("generating", total=len(job.questions))
        progress.advance(bar, sum(map(len, job.batches[:done])))
        for batch in job.batches[done:]:
            io.append_batch(path, _batch_rows(job, batch, settings, asking))
            progress.advance(bar, len(batch))
    io.finish_rows(path)
    seconds = time.perf_counter() - begun
    console.print(f"generated in {seconds:.1f} s, compiling included", highlight=False)


def _batch_rows(
    job: GenerateJob, batch: list[int], settings: GenerateSettings, asking: Asking | None
) -> list[dict[str, Any]]:
    prompts = [job.prompts[i] for i in batch]
    greedily = settings.sampling._replace(temperature=0.0)
    greedy = generate(job.model, prompts, greedily, mesh=job.mesh)
    samples: list[list[Generated]] = [[] for _ in batch]
    for number in range(settings.samples):
        keys = [jax.random.fold_in(jax.random.fold_in(job.key, i), number) for i in batch]
        drawn = generate(
            job.model, prompts, settings.sampling, keys=jax.numpy.stack(keys), mesh=job.mesh
        )
        for row, one in zip(samples, drawn, strict=True):
            row.append(one)
    rows = [
        _row(job, index, first, rest)
        for index, first, rest in zip(batch, greedy, samples, strict=True)
    ]
    if asking is not None:
        questions = [job.questions[i] for i in batch]
        ideas = [[one["text"] for one in row["samples"]] for row in rows]
        asked = asking.scores(questions, [row["answer"] for row in rows], ideas)
        rows = [row | more for row, more in zip(rows, asked, strict=True)]
    return rows


def _row(
    job: GenerateJob, index: int, greedy: Generated, samples: list[Generated]
) -> dict[str, Any]:
    question = job.questions[index]
    finite = all(one.ended != "not finite" for one in (greedy, *samples))
    answer = clean_answer(greedy.text)
    return {
        "schema_version": io.SCHEMA_VERSION,
        "index": index,
        "id": question.id,
        "status": "ok" if finite else "non_finite",
        "truncated": job.truncated[index],
        "answer": answer,
        "aliases": list(question.aliases),
        "correct": exact_match(answer, question.aliases) if finite else None,
        "contains": contains_match(answer, question.aliases) if finite else None,
        "metadata": question.metadata,
        "prompt_ids": job.prompts[index],
        "greedy": _written(greedy, job),
        "samples": [_written(one, job) for one in samples],
    }


def _written(one: Generated, job: GenerateJob) -> dict[str, Any]:
    """A continuation; `num_answer_tokens` says how many of its first tokens are the answer's."""
    return {
        "text": clean_answer(one.text),
        "token_ids": list(one.token_ids),
        "log_likelihoods": [io.float32_number(x) for x in one.log_likelihoods],
        "num_answer_tokens": _num_answer_tokens(one, job),
        "ended": one.ended,
    }


def _num_answer_tokens(one: Generated, job: GenerateJob) -> int:
    """Fewest tokens whose text holds the cleaned answer; at least one."""
    wanted = clean_answer(one.text)
    for count in range(1, len(one.token_ids) + 1):
        if wanted in job.model.tokenizer.decode(one.token_ids[:count]):
            return count
    return len(one.token_ids)


def _report(
    rows: list[dict[str, Any]], args: argparse.Namespace, directory: pathlib.Path, console: Console
) -> None:
    finite = [row for row in rows if row["status"] == "ok"]
    exact = sum(row["correct"] for row in finite)
    held = sum(row["contains"] for row in finite)
    bad = len(rows) - len(finite)
    console.print(
        f"{len(rows)} questions, exact match {exact / max(len(finite), 1):.3f}, contains "
        f"{held / max(len(finite), 1):.3f}" + (f", {bad} non-finite" if bad else ""),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(
        f"written to {directory}\nnext: fishjax score --model {args.model} --generations "
        f"{directory} --out DIRECTORY" + (f" --adapter {args.adapter}" if args.adapter else ""),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
