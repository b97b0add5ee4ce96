"""From arguments to an estimator, its batches and the manifest that names them."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fishjax import estimators, io
from fishjax.cli.corpus_input import read_corpus
from fishjax.cli.environment import run_identity
from fishjax.cli.errors import InputError
from fishjax.cli.meshes import data_size, mesh_of, placement_of, spread
from fishjax.cli.model_input import model_facts
from fishjax.estimators import Estimator, solvers, targets
from fishjax.likelihoods import Categorical, Examples
from fishjax.models import LanguageModel
from fishjax.tasks import Windows
from fishjax.trees import flatten_with_paths, select_paths

__all__ = ["FisherJob", "batch_examples", "estimator_of", "prepare_fisher_job"]

_TARGETS = {"sampled": targets.sampled, "empirical": targets.empirical, "exact": targets.exact}


class FisherJob(NamedTuple):
    """A stream of batches and what is estimated from it.

    Attributes:
      model: loaded.
      estimator: of the operator.
      windows: the corpus.
      batches: indices of this worker's batches, in order.
      batch_size: windows of a batch.
      key: of drawn targets; folded with a batch's index, so that every pass sees the same.
      manifest: for `run.json`.
      mesh: of devices, None for one.
    """

    model: LanguageModel
    estimator: Estimator
    windows: Windows
    batches: list[int]
    batch_size: int
    key: Any
    manifest: dict[str, Any]
    mesh: Mesh | None = None


def estimator_of(settings: dict[str, Any], apply_fn: Callable[..., Any]) -> Estimator:
    """The estimator that a manifest's settings name."""
    kinds: dict[str, Callable[..., Estimator]] = {
        "kfac": estimators.kfac,
        "ekfac": estimators.ekfac,
        "kpsvd": _kpsvd,
        "diagonal": estimators.diagonal,
        "isotropic": estimators.isotropic,
        "low_rank": estimators.low_rank,
    }
    more: dict[str, Any] = {}
    if settings["kind"] in ("kpsvd", "low_rank"):
        more["rank"] = settings["rank"]
    if settings["kind"] != "low_rank":
        more["chunk"] = settings["chunk"]
    drawn = settings["targets"] == "sampled"
    kind = _TARGETS[settings["targets"]](*([settings["draws"]] if drawn else []))
    return kinds[settings["kind"]](
        apply_fn, Categorical(), targets=kind, parameters=settings["parameters"], **more
    )


def _kpsvd(model: Any, likelihood: Any, *, rank: int, **settings: Any) -> Estimator:
    solver = solvers.single_pass() if rank == 1 else solvers.lanczos(rank + 3)
    return estimators.kpsvd(model, likelihood, rank=rank, solver=solver, **settings)


def prepare_fisher_job(args: argparse.Namespace) -> FisherJob:
    """Reads the corpus and the model.

    Raises:
      InputError: a file or a setting cannot be used.
    """
    data = pathlib.Path(args.data)
    mesh = mesh_of(args.mesh)
    if args.batch % data_size(mesh):
        raise InputError(
            f"--batch {args.batch} does not divide into {data_size(mesh)} parts: choose a multiple"
        )
    model, found, length, fingerprint = read_corpus(args, placement_of(mesh))
    worker, workers = _shard(args.shard)
    total = -(-len(found.inputs) // args.batch)
    batches = list(range(worker, total, workers))
    if not batches:
        raise InputError(f"worker {args.shard} of {total} batches has none: use fewer workers")
    settings = {
        "schema_version": io.SCHEMA_VERSION,
        "command": "fisher",
        "kind": args.kind,
        "rank": args.rank,
        "targets": args.targets,
        "draws": args.draws,
        "parameters": args.parameters,
        "chunk": args.chunk,
        "length": length,
        "batch": args.batch,
        "limit": args.limit,
        "seed": args.seed,
        "dtype": args.dtype,
        "shard": args.shard,
        "mesh": args.mesh,
        "model_sha256": model.fingerprint,
        "data_sha256": fingerprint,
        **run_identity(),
    }
    manifest = {
        "settings": settings,
        **model_facts(model),
        "data": data.name,
        "num_windows": len(found.inputs),
        "num_batches": len(batches),
    }
    try:
        select_paths(flatten_with_paths(model.params)[0], args.parameters)
        estimator = estimator_of(settings, model.apply_fn)
    except ValueError as error:
        raise InputError(str(error)) from None
    key = jax.random.key(args.seed)
    return FisherJob(model, estimator, found, batches, args.batch, key, manifest, mesh)


def batch_examples(job: FisherJob, index: int) -> tuple[Examples, Any]:
    """One batch, and the key of its targets."""
    rows = job.windows.batch(index * job.batch_size, job.batch_size)
    examples = Examples(*(jnp.asarray(array) for array in rows))
    return spread(examples, job.mesh), jax.random.fold_in(job.key, index)


def _shard(text: str) -> tuple[int, int]:
    """`i/n` with `0 <= i < n`."""
    try:
        worker, workers = (int(part) for part in text.split("/"))
    except ValueError:
        worker, workers = -1, 0
    if not 0 <= worker < workers:
        raise InputError(f"--shard {text}: expected i/n with 0 <= i < n, as 0/4 to 3/4")
    return worker, workers
