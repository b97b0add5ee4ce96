"""From arguments to what is fine-tuned on what, and the manifest that names it."""

import argparse
import dataclasses
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fishjax import io
from fishjax.cli.corpus_input import read_corpus
from fishjax.cli.environment import run_identity
from fishjax.cli.errors import InputError
from fishjax.cli.model_input import model_facts
from fishjax.models import (
    LanguageModel,
    LoraConfig,
    decoder_apply_fn,
    init_adapters,
)
from fishjax.models.finetune import Tuning, TuningState, batch_rows, init_tuning
from fishjax.tasks import Windows

__all__ = ["FinetuneJob", "prepare_finetune_job"]

_RANK, _TARGETS = 8, ("attention/query", "attention/value")


class FinetuneJob(NamedTuple):
    """What is trained on what.

    Attributes:
      model: as loaded, without adapters; where all its parameters are trained, the first step
        takes over their memory.
      lora: of the adapters that are trained; None where all parameters are.
      apply_fn: of the parameters with the adapters.
      tuning: the optimiser.
      windows: the corpus.
      batch_size: windows of a batch.
      seed: of batches, adapters and dropout.
      manifest: for `run.json`.
    """

    model: LanguageModel
    lora: LoraConfig | None
    apply_fn: Callable[..., Any]
    tuning: Tuning
    windows: Windows
    batch_size: int
    seed: int
    manifest: dict[str, Any]

    @property
    def frozen(self) -> dict[str, Any]:
        """The parameters that stay."""
        return {} if self.lora is None else self.model.params

    def start(self) -> TuningState:
        """The state before the first step."""
        if self.lora is None:
            return init_tuning(self.tuning, self.model.params)
        config = dataclasses.replace(self.model.config, lora=self.lora)
        return init_tuning(self.tuning, init_adapters(config, self._keys()[0]))

    def inputs_of(self, step: int) -> tuple[Any, ...]:
        """Windows and dropout key of a step: functions of the seed and the step alone."""
        rows = batch_rows(len(self.windows.inputs), self.batch_size, seed=self.seed, step=step)
        batch = (jnp.asarray(array[rows]) for array in self.windows)
        return (*batch, jax.random.fold_in(self._keys()[1], step))

    def _keys(self) -> jax.Array:
        """Of the adapters and of the dropout."""
        return jax.random.split(jax.random.key(self.seed))


def prepare_finetune_job(args: argparse.Namespace) -> FinetuneJob:
    """Reads the corpus and the model.

    Raises:
      InputError: a file or a setting cannot be used.
    """
    data = pathlib.Path(args.data)
    tuning = Tuning(args.steps, args.learning_rate, args.warmup, args.weight_decay, args.clip)
    try:
        tuning.check()
        lora = _lora_of(args)
    except ValueError as error:
        raise InputError(str(error)) from None
    model, found, length, fingerprint = read_corpus(args)
    try:
        config = dataclasses.replace(model.config, lora=lora)
    except ValueError as error:
        raise InputError(str(error)) from None
    settings = {
        "schema_version": io.SCHEMA_VERSION,
        "command": "finetune",
        "lora": None
        if lora is None
        else dataclasses.asdict(lora) | {"targets": list(lora.targets)},
        **tuning._asdict(),
        "batch": args.batch,
        "length": length,
        "limit": args.limit,
        "seed": args.seed,
        "dtype": args.dtype,
        "model_sha256": model.fingerprint,
        "data_sha256": fingerprint,
        **run_identity(),
        "optax_version": importlib.metadata.version("optax"),
    }
    manifest = {
        "settings": settings,
        **model_facts(model),
        "data": data.name,
        "num_windows": len(found.inputs),
    }
    return FinetuneJob(
        model, lora, decoder_apply_fn(config), tuning, found, args.batch, args.seed, manifest
    )


def _lora_of(args: argparse.Namespace) -> LoraConfig | None:
    """The adapters, or None for all parameters.

    Raises:
      InputError: options of adapters beside `--full`.
      ValueError: a number is out of range.
    """
    own = ("lora_rank", "lora_targets", "lora_alpha", "lora_dropout")
    if args.full:
        given = [f"--{name.replace('_', '-')}" for name in own if getattr(args, name) is not None]
        if args.merge:
            given.append("--merge")
        if given:
            raise InputError(f"{', '.join(given)} beside --full: without adapters leave them out")
        return None
    rank = args.lora_rank or _RANK
    return LoraConfig(
        rank=rank,
        alpha=2.0 * rank if args.lora_alpha is None else args.lora_alpha,
        targets=tuple(args.lora_targets or _TARGETS),
        dropout=args.lora_dropout or 0.0,
    )
