"""`fishjax fisher`: streams a corpus into a curvature operator, resumable after `kill -9`."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from fishjax import io, operators
from fishjax.cli.config_file import open_directory
from fishjax.cli.environment import format_bytes
from fishjax.cli.errors import InputError, RunError
from fishjax.cli.fisher_job import FisherJob, batch_examples, estimator_of, prepare_fisher_job
from fishjax.cli.inspect import inspect_directory
from fishjax.cli.meshes import on_mesh
from fishjax.cli.messages import progress_bar
from fishjax.compilation import compiler_options
from fishjax.estimators import Estimator, State, merge
from fishjax.io.checkpoints import save_tree
from fishjax.io.states import newest_state, remove_older, save_state

__all__ = ["run"]

_NEEDED = ("model", "data", "out")


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    console = Console(stderr=True, quiet=args.quiet)
    if args.action == "merge":
        _merge(args, console)
        return 0
    missing = [f"--{name}" for name in _NEEDED if getattr(args, name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} missing (see fishjax fisher --help)")
    job = prepare_fisher_job(args)
    with open_directory(args, job.manifest) as directory:
        with on_mesh(job.mesh):
            state, closed = _streamed(job, directory, args, console)
        if closed:
            _finish(job.estimator, state, directory, args, console)
            inspect_directory(directory, with_plots=not args.no_plots, quiet=args.quiet)
    return 0


def _streamed(
    job: FisherJob, directory: pathlib.Path, args: argparse.Namespace, console: Console
) -> tuple[State, bool]:
    """Brings the state to its end; whether all passes are done (a worker stops after one)."""
    batches, estimator = job.batches, job.estimator
    (first, done), state = _begun(job, directory, args)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    console.print(
        f"plan: {len(job.windows.inputs)} windows of {job.windows.inputs.shape[1]} tokens, "
        f"{len(batches)} batches, {estimator.passes} passes; state {format_bytes(size)}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if (first, done) != (0, 0):
        console.print(f"resuming in pass {first + 1} after {done} batches", highlight=False)
    alone = job.manifest["settings"]["shard"].endswith("/1")
    last = estimator.passes if alone else first + 1
    with progress_bar(console) as progress:
        bar = progress.add_task("fisher", total=len(batches) * (last - first) - done)
        for current in range(first, last):
            if current > first:
                state, done = _advanced(estimator, state), 0
                _keep(directory, state, current, 0)
            update = jax.jit(estimator.update, compiler_options=compiler_options())
            skipped = [state.skipped]
            for i in range(done, len(batches)):
                examples, key = batch_examples(job, batches[i])
                state = update(state, job.model.params, examples, key)
                skipped.append(state.skipped)
                progress.advance(bar)
                if (i + 1) % args.checkpoint_every == 0 or i + 1 == len(batches):
                    _warn_skipped(job, current, i + 1, skipped)
                    skipped = skipped[-1:]
                    _keep(directory, state, current, i + 1)
    _say_end(state, None if alone else last, estimator.passes, console)
    return state, alone


def _begun(
    job: FisherJob, directory: pathlib.Path, args: argparse.Namespace
) -> tuple[tuple[int, int], State]:
    """`((pass, batches done), state)` to go on from."""
    here, state = _last_state(directory / io.STATES_NAME)
    remove_older(directory / io.STATES_NAME)
    if state is None and args.start is not None:
        here, state = _start_of(pathlib.Path(args.start), job)
    if state is None:
        examples, _ = batch_examples(job, job.batches[0])
        init = jax.jit(job.estimator.init, compiler_options=compiler_options())
        here, state = (0, 0), init(job.model.params, examples)
    return here, state


def _say_end(state: State, last: int | None, passes: int, console: Console) -> None:
    """What was left out of all passes; for a worker that has done the pass `last`, what is next."""
    if skipped := int(state.skipped):
        Console(stderr=True).print(
            f"warning: {skipped} batches of all passes gave sums that are not finite and were "
            "left out",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if last is not None:
        more = "" if last == passes else ", then again with --start MERGED and a new --out"
        console.print(
            f"this worker has done pass {last} of {passes}: when all have, run "
            f"`fishjax fisher merge --out MERGED DIRECTORY...`{more}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _advanced(estimator: Estimator, state: State) -> State:
    """The state with which the next pass begins.

    Raises:
      RunError: no batch of this one had finite sums.
    """
    try:
        return estimator.advance(state)
    except ValueError as error:
        raise RunError(str(error)) from None


def _warn_skipped(job: FisherJob, number: int, done: int, skipped: Sequence[Any]) -> None:
    """Names the batches since the last stored state that were left out, also to the quiet.

    Args:
      job: whose batches they are.
      number: of the pass, from 0.
      done: batches of the pass so far.
      skipped: counts of the state, before the first of these batches and after each.
    """
    counts = np.asarray(jax.device_get(list(skipped)))
    places = done - len(counts) + 1 + np.flatnonzero(np.diff(counts))
    for place in places.tolist():
        index, size = job.batches[place], job.batch_size
        Console(stderr=True).print(
            f"warning: pass {number + 1}: batch {place + 1} of {len(job.batches)} (windows "
            f"{index * size} to {index * size + size - 1} of the corpus) gives sums that are not "
            "finite and is left out",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _keep(directory: pathlib.Path, state: State, number: int, batches: int) -> None:
    save_state(directory / io.STATES_NAME, f"{number:06d}-{batches:09d}", state)


def _last_state(states: pathlib.Path) -> tuple[tuple[int, int], State | None]:
    """`((pass, batches done), state)` of the newest whole state."""
    newest = newest_state(states)
    if newest is None:
        return (0, 0), None
    name, state = newest
    number, batches = name.split("-")
    return (int(number), int(batches)), state


def _start_of(directory: pathlib.Path, job: FisherJob) -> tuple[tuple[int, int], State]:
    """The state of a merged pass, with which the next begins."""
    settings, own = io.read_manifest(directory)["settings"], job.manifest["settings"]
    _refuse_differences(directory, settings, own)
    here, state = _last_state(directory / io.STATES_NAME)
    if state is None or here[1] != 0:
        raise InputError(
            f"{directory} holds no merged pass to start from: use `fisher merge` first"
        )
    return here, state


def _finish(
    estimator: Estimator, state: State, directory: pathlib.Path, args: Any, console: Console
) -> None:
    try:
        operator = _stored(estimator.finalize(state), args.store, args.store_rank)
    except ValueError as error:
        raise RunError(str(error)) from None
    save_tree(directory / io.OPERATOR_NAME, operator)
    console.print(f"operator: {directory / io.OPERATOR_NAME}", highlight=False, soft_wrap=True)


def _stored(operator: Any, how: str, rank: int) -> Any:
    """The operator in the form in which it is kept.

    Raises:
      ValueError: that form is not one of this kind of operator.
    """
    if how == "full":
        return operator
    if isinstance(operator, operators.Kronecker):
        if how == "truncated":
            return operators.truncated(operator, rank)
        operator = operators.eigendecomposed(operator)
    if how == "half" and isinstance(operator, operators.EigenKronecker):
        return operators.halved(operator)
    raise ValueError(
        f"--store {how} is not known for {type(operator).__name__}: expected kfac"
        f"{' or ekfac' if how == 'half' else ''}; use --store full"
    )


def _merge(args: argparse.Namespace, console: Console) -> None:
    """`fishjax fisher merge`: one pass of several workers becomes one."""
    parts = [pathlib.Path(name) for name in args.directories]
    if len(parts) < 2:
        raise InputError(f"{len(parts)} directories to merge: expected two or more")
    manifests = [io.read_manifest(part) for part in parts]
    settings = manifests[0]["settings"]
    for part, manifest in zip(parts, manifests, strict=True):
        if manifest["settings"].get("command") != "fisher":
            raise InputError(f"{part} is no run of `fishjax fisher`")
        _refuse_differences(part, manifest["settings"], settings)
    shards = [manifest["settings"]["shard"] for manifest in manifests]
    workers = settings["shard"].split("/")[1]
    expected = {f"{i}/{workers}" for i in range(int(workers))}
    if set(shards) != expected or len(shards) != len(expected):
        raise InputError(
            f"the directories are shards {', '.join(sorted(shards))}: expected each of "
            f"{', '.join(sorted(expected))} once"
        )
    states, passes = [], set()
    for part, manifest in zip(parts, manifests, strict=True):
        (number, done), state = _last_state(part / io.STATES_NAME)
        if state is None or done != manifest["num_batches"]:
            raise InputError(f"{part} is not finished: run its command again first")
        states.append(state)
        passes.add(number)
    if len(passes) > 1:
        raise InputError(f"the workers are in different passes, {sorted(passes)}: finish the same")
    estimator = estimator_of(settings, lambda *_: None)
    number = passes.pop()
    merged: Any = {**manifests[0], "settings": {**settings, "shard": "merged", "pass": number}}
    directory = pathlib.Path(args.out)
    with io.open_run(directory, merged):
        try:
            state = merge(estimator, *states)
        except ValueError as error:
            raise InputError(str(error)) from None
        if number + 1 == estimator.passes:
            _keep(directory, state, number, merged["num_batches"])
            _finish(estimator, state, directory, args, console)
            inspect_directory(directory, with_plots=not args.no_plots, quiet=args.quiet)
        else:
            _keep(directory, _advanced(estimator, state), number + 1, 0)
            console.print(f"pass {number + 1} of {estimator.passes} merged", highlight=False)


def _refuse_differences(part: pathlib.Path, there: Any, here: Any) -> None:
    ignored = {"shard", "pass"}
    names = [n for n in here if n not in ignored and there.get(n) != here[n]]
    if names:
        raise InputError(
            f"{part} was made with other settings ({', '.join(names)}): its state cannot be used"
        )
