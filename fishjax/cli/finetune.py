"""`fishjax finetune`: adapters or all parameters on a corpus, resumable after `kill -9`."""

import argparse
import pathlib
from typing import Any

import jax
import numpy as np
from rich.console import Console

from fishjax import io
from fishjax.cli.config_file import open_directory
from fishjax.cli.environment import format_bytes
from fishjax.cli.errors import RunError
from fishjax.cli.finetune_job import FinetuneJob, prepare_finetune_job
from fishjax.cli.finetune_outputs import write_outputs
from fishjax.cli.messages import progress_bar
from fishjax.compilation import compiler_options
from fishjax.io.states import newest_state, remove_older, save_state
from fishjax.models.finetune import TuningState, tuning_step

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    console = Console(stderr=True, quiet=args.quiet)
    job = prepare_finetune_job(args)
    source = job.model.path or pathlib.Path(args.model)
    with open_directory(args, job.manifest) as directory:
        trained = _tuned(job, directory, args.checkpoint_every, console)
        written = write_outputs(job, trained, directory, source, merge=args.merge)
    for line in written:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


def _tuned(job: FinetuneJob, directory: pathlib.Path, every: int, console: Console) -> Any:
    """Takes the steps that are left; the trained parameters.

    Raises:
      RunError: a loss, a gradient or the parameters after a step are not finite.
    """
    state, done = _last_state(job, directory)
    io.keep_steps(directory / io.LOSSES_NAME, done)
    _announce(job, state, done, console)
    step = jax.jit(
        tuning_step(job.apply_fn, job.tuning),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    schedule = _rates(job)
    rows: list[dict[str, Any]] = []
    with progress_bar(console) as progress:
        bar = progress.add_task("fine-tuning", total=job.tuning.num_steps, completed=done)
        for number in range(done, job.tuning.num_steps):
            state, report = step(state, job.frozen, *job.inputs_of(number))
            loss, norm, finite = jax.device_get(report)
            if not finite:
                if rows or number == 0:
                    _keep(directory, state, number, rows)
                raise RunError(_diverged(number, float(loss), directory))
            rows.append(_row(number, loss, norm, schedule[number]))
            progress.update(bar, advance=1, description=f"loss {loss:.3f}")
            if (number + 1) % every == 0 or number + 1 == job.tuning.num_steps:
                _keep(directory, state, number + 1, rows)
                mean = np.mean([row["loss"] for row in rows])
                progress.console.print(
                    f"step {number + 1}: loss {mean:.4f} (mean of {len(rows)} steps)",
                    highlight=False,
                )
                rows = []
    return state.trained


def _announce(job: FinetuneJob, state: TuningState, done: int, console: Console) -> None:
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.trained, job.frozen)
    ]
    stored = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    console.print(
        f"plan: {job.tuning.num_steps} steps of {job.batch_size} of {len(job.windows.inputs)} "
        f"windows of {job.windows.inputs.shape[1]} tokens; {sizes[0]} numbers trained, "
        f"{sizes[1]} frozen; checkpoint {format_bytes(stored)}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if done:
        console.print(f"resuming after {done} steps", highlight=False)


def _row(number: int, loss: Any, norm: Any, rate: Any) -> dict[str, Any]:
    numbers = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
    return {"step": number, **{name: io.float32_number(x) for name, x in numbers.items()}}


def _rates(job: FinetuneJob) -> np.ndarray:
    """The learning rate of every step."""
    return np.asarray(jax.vmap(job.tuning.schedule())(np.arange(job.tuning.num_steps)))


def _diverged(number: int, loss: float, directory: pathlib.Path) -> str:
    return (
        f"step {number} (loss {loss}) gives numbers that are not finite; nothing is lost: the "
        f"parameters before that step are in {directory / io.STATES_NAME}. The same command fails "
        "at the same step: lower --learning-rate or raise --warmup in a new directory"
    )


def _keep(
    directory: pathlib.Path, state: TuningState, steps: int, rows: list[dict[str, Any]]
) -> None:
    """Appends the losses, then stores the state, then removes older ones."""
    io.append_batch(directory / io.LOSSES_NAME, rows)
    leaves = jax.tree.leaves(state.optimiser)
    tree = {"trained": state.trained, "optimiser": leaves}
    save_state(directory / io.STATES_NAME, f"{steps:09d}", tree)


def _last_state(job: FinetuneJob, directory: pathlib.Path) -> tuple[TuningState, int]:
    """`(state, steps done)` of the newest whole checkpoint, or of the start."""
    newest = newest_state(directory / io.STATES_NAME)
    if newest is None:
        return job.start(), 0
    remove_older(directory / io.STATES_NAME)
    name, stored = newest
    structure = jax.tree.structure(jax.eval_shape(job.start).optimiser)
    optimiser = jax.tree.unflatten(structure, stored["optimiser"])
    return TuningState(stored["trained"], optimiser), int(name)
