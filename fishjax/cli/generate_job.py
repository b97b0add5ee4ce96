"""From arguments to a generation job: model, open questions, prompts in batches, the manifest."""

import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from fishjax import io
from fishjax.cli.adapters import adapter_hash
from fishjax.cli.environment import run_identity
from fishjax.cli.errors import InputError
from fishjax.cli.meshes import mesh_of
from fishjax.cli.model_input import model_facts, read_model
from fishjax.cli.prompts import adds_bos, prompted
from fishjax.models import CheckpointError, LanguageModel, Sampling, TokenizerError, end_ids
from fishjax.tasks import OpenQuestion, TaskError, load_open_task

__all__ = ["GenerateJob", "GenerateSettings", "prepare_generate_job"]


class GenerateSettings(NamedTuple):
    """Everything a user chooses that a generation can depend on."""

    model: pathlib.Path
    task: str
    data: pathlib.Path
    limit: int | None
    seed: int
    dtype: str
    batch: int
    samples: int
    ask: bool
    sampling: Sampling
    shots: int = 0
    shots_data: pathlib.Path | None = None
    chat: bool = False
    adapter: pathlib.Path | None = None
    mesh: str | None = None


class GenerateJob(NamedTuple):
    """A run before it starts.

    Attributes:
      model: loaded.
      questions: in file order, without examples and chat template.
      prompts: token ids of each with them, cut on the left where the context is too short.
      truncated: whether they were.
      batches: indices of the questions of each batch, of similar length.
      key: of the samples; folded with a question's index.
      manifest: for `run.json`.
      mesh: of devices, None for one.
    """

    model: LanguageModel
    questions: tuple[OpenQuestion, ...]
    prompts: list[list[int]]
    truncated: list[bool]
    batches: list[list[int]]
    key: Any
    manifest: dict[str, Any]
    mesh: Mesh | None = None


def prepare_generate_job(settings: GenerateSettings) -> GenerateJob:
    """Reads the questions and the model and plans the batches.

    Raises:
      InputError: a file, a question or a setting cannot be used.
    """
    mesh = mesh_of(settings.mesh)
    try:
        settings.sampling.check()
        questions = tuple(load_open_task(settings.task, settings.data, limit=settings.limit))
        model = read_model(
            settings.model, dtype=settings.dtype, mesh=mesh, adapter=settings.adapter
        )
        asked = prompted(questions, settings, model.tokenizer)
        bos = adds_bos(model, settings)
        encoded = [model.tokenizer.encode(question.context, bos=bos) for question in asked]
        fingerprint = hashlib.sha256(settings.data.read_bytes()).hexdigest()
    except (CheckpointError, TokenizerError, TaskError, ValueError) as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    room = model.config.context_length - settings.sampling.max_tokens
    if room < 1:
        raise InputError(
            f"--max-tokens {settings.sampling.max_tokens}: the context of {model.name} is "
            f"{model.config.context_length} tokens and a prompt needs some: lower it"
        )
    prompts = [(ids or [model.tokenizer.bos_id])[-room:] for ids in encoded]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    batches = [order[i : i + settings.batch] for i in range(0, len(order), settings.batch)]
    return GenerateJob(
        model=model,
        questions=questions,
        prompts=prompts,
        truncated=[len(ids) > room for ids in encoded],
        batches=batches,
        key=jax.random.key(settings.seed),
        manifest=_manifest(settings, model, prompts, len(batches), fingerprint),
        mesh=mesh,
    )


def _manifest(
    settings: GenerateSettings,
    model: LanguageModel,
    prompts: list[list[int]],
    batches: int,
    data_sha256: str,
) -> dict[str, Any]:
    """The hash of the prompts covers the tokenizer, its chat template and the examples."""
    chosen = settings._asdict()
    sampling = chosen.pop("sampling")._asdict()
    for name in ("model", "data", "shots_data", "adapter"):
        del chosen[name]
    return {
        "settings": {
            "schema_version": io.SCHEMA_VERSION,
            "command": "generate",
            "model_sha256": model.fingerprint,
            "data_sha256": data_sha256,
            "adapter_sha256": adapter_hash(settings.adapter),
            "end_ids": sorted(end_ids(model)),
            "prompts_sha256": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
            **chosen,
            **{name: list(v) if isinstance(v, tuple) else v for name, v in sampling.items()},
            **run_identity(),
        },
        **model_facts(model),
        "data": settings.data.name,
        "num_questions": len(prompts),
        "num_batches": batches,
    }
