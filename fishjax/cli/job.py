"""From arguments to a job: model, questions, batch plan and the manifest that names them."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from fishjax import io
from fishjax.cli.adapters import adapter_hash
from fishjax.cli.environment import run_identity
from fishjax.cli.errors import InputError
from fishjax.cli.generations import GeneratedAnswers, read_generated
from fishjax.cli.meshes import data_size, mesh_of
from fishjax.cli.model_input import model_facts, read_model
from fishjax.cli.prompts import adds_bos, prompted
from fishjax.cli.text import TEXT_TASK, text_windows
from fishjax.models import (
    CheckpointError,
    LanguageModel,
    TokenizerError,
)
from fishjax.tasks import (
    BatchPlan,
    TaskError,
    encode_questions,
    load_task,
    plan_batches,
)
from fishjax.trees import flatten_with_paths, select_paths

__all__ = ["Job", "Settings", "prepare_job", "question_facts"]


class Settings(NamedTuple):
    """Everything a user chooses that a row can depend on."""

    model: pathlib.Path
    task: str
    data: pathlib.Path
    limit: int | None
    seed: int
    dtype: str
    batch_tokens: int
    per_token: bool
    mesh: str | None = None
    shots: int = 0
    shots_data: pathlib.Path | None = None
    chat: bool = False
    generations: pathlib.Path | None = None
    stride: int | None = None
    adapter: pathlib.Path | None = None
    parameters: str | None = None
    max_characters: int | None = None


class Job(NamedTuple):
    """A run before it starts.

    Attributes:
      model: loaded.
      facts: what rows say about each question besides the model's numbers.
      batches: the padded batches, in the order in which they run.
      order: indices of the real questions of every batch, as rows are written.
      num_tokens: tokens the model reads, padding not included, per question.
      manifest: for `run.json`.
      mesh: of devices, None for one.
      scores: of each question, from its generations; empty without.
    """

    model: LanguageModel
    facts: list[io.QuestionFacts]
    batches: list[BatchPlan]
    order: list[list[int]]
    num_tokens: list[int]
    manifest: dict[str, Any]
    mesh: Mesh | None = None
    scores: Sequence[dict[str, float]] = ()


def prepare_job(settings: Settings) -> Job:
    """Reads the questions and the model and plans the batches.

    Raises:
      InputError: a file, a question or a setting cannot be used.
    """
    mesh = mesh_of(settings.mesh)
    try:
        source = _generated if settings.generations else _from_task
        source = _from_text if settings.task == TEXT_TASK else source
        model, prepared = source(settings, mesh)
        batches = plan_batches(
            prepared.encoded,
            batch_tokens=settings.batch_tokens,
            multiple=data_size(mesh),
            share_prompts=True,
        )
    except (CheckpointError, TokenizerError, TaskError) as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    encoded = prepared.encoded
    facts = question_facts(prepared)
    return Job(
        model=model,
        facts=facts,
        batches=batches,
        order=[[int(i) for i in batch.indices if i >= 0] for batch in batches],
        num_tokens=[sum(len(a.token_ids) - 1 for a in question.answers) for question in encoded],
        manifest=_manifest(settings, model, batches, prepared, facts),
        mesh=mesh,
        scores=prepared.scores,
    )


def _loaded(settings: Settings, mesh: Mesh | None) -> LanguageModel:
    # remat: at scoring's lengths an attention matrix costs more to store and read back than to
    # compute again, in time and in memory
    model = read_model(
        settings.model, dtype=settings.dtype, mesh=mesh, adapter=settings.adapter, remat=True
    )
    try:
        select_paths(flatten_with_paths(model.params)[0], settings.parameters)
    except ValueError as error:
        raise InputError(f"--parameters: {error}") from None
    return model


def _from_task(settings: Settings, mesh: Mesh | None) -> tuple[LanguageModel, GeneratedAnswers]:
    """A task's questions, read before the model: a bad file is found in milliseconds."""
    task = load_task(settings.task, settings.data, seed=settings.seed, limit=settings.limit)
    model = _loaded(settings, mesh)
    questions = prompted(task.questions, settings, model.tokenizer)
    encoded = encode_questions(
        questions, model.tokenizer, model.config.context_length, adds_bos(model, settings)
    )
    digest = hashlib.sha256(settings.data.read_bytes()).hexdigest()
    return model, GeneratedAnswers(settings.task, questions, encoded, [], digest)


def _from_text(settings: Settings, mesh: Mesh | None) -> tuple[LanguageModel, GeneratedAnswers]:
    """Windows of plain text.

    Raises:
      InputError: options of prompts.
    """
    if settings.shots or settings.shots_data or settings.chat:
        raise InputError("--shots and --chat make prompts of questions: plain text has none")
    model = _loaded(settings, mesh)
    return model, text_windows(
        settings.data, model, settings.limit, settings.stride, settings.max_characters
    )


def _generated(settings: Settings, mesh: Mesh | None) -> tuple[LanguageModel, GeneratedAnswers]:
    """The answers of a run of `fishjax generate`."""
    assert settings.generations is not None
    model = _loaded(settings, mesh)
    found = read_generated(settings.generations, model, adapter_hash(settings.adapter))
    limit = settings.limit
    return model, found._replace(
        questions=found.questions[:limit],
        encoded=found.encoded[:limit],
        scores=found.scores[:limit],
        finite=found.finite[:limit],
    )


def question_facts(prepared: GeneratedAnswers) -> list[io.QuestionFacts]:
    """What rows say about each question before the model has seen it, in file order.

    Characters and bytes are counted as lm-eval does: of the choice without the one space
    that separates it from the prompt.
    """
    facts = []
    for index, (question, tokens) in enumerate(
        zip(prepared.questions, prepared.encoded, strict=True)
    ):
        bare = [choice.removeprefix(" ") for choice in question.choices]
        sizes = prepared.document_bytes
        facts.append(
            io.QuestionFacts(
                index=index,
                id=question.id,
                prompt_hash=tokens.prompt_hash,
                truncated=tokens.truncated,
                labels=tuple(question.labels),
                num_characters=tuple(len(choice) for choice in bare),
                num_bytes=tuple(len(choice.encode()) for choice in bare),
                num_tokens=tuple(answer.num_targets for answer in tokens.answers),
                finite=not prepared.finite or prepared.finite[index],
                metadata=question.metadata,
                document_bytes=sizes[index] if sizes else None,
            )
        )
    return facts


def _manifest(
    settings: Settings,
    model: LanguageModel,
    batches: Sequence[BatchPlan],
    prepared: GeneratedAnswers,
    facts: Sequence[io.QuestionFacts],
) -> dict[str, Any]:
    """`settings` decides whether a directory holds the same run; the rest is information.

    Versions and platform belong to it: other code may round differently, and a resumed file
    must equal an uninterrupted one.
    """
    return {
        "settings": {
            "schema_version": io.SCHEMA_VERSION,
            "model_sha256": model.fingerprint,
            "task": prepared.task,
            "data_sha256": prepared.sha256,
            "limit": settings.limit,
            "seed": settings.seed,
            "dtype": settings.dtype,
            "batch_tokens": settings.batch_tokens,
            "per_token": settings.per_token,
            "mesh": settings.mesh,
            "shots": settings.shots,
            "chat": settings.chat,
            "generations": settings.generations is not None,
            "stride": settings.stride,
            "parameters": settings.parameters,
            "adapter_sha256": adapter_hash(settings.adapter),
            "max_characters": settings.max_characters,
            "batch_plan_sha256": _plan_hash(batches),
            "facts_sha256": _facts_hash(facts),
            **run_identity(),
        },
        **model_facts(model),
        "data": (settings.generations or settings.data).name,
        "num_questions": sum(int((batch.indices >= 0).sum()) for batch in batches),
        "num_batches": len(batches),
    }


def _plan_hash(batches: Sequence[BatchPlan]) -> str:
    """Covers every id the model reads, so also the tokenizer and the task's code."""
    digest = hashlib.sha256()
    for batch in batches:
        for array in (batch.indices, batch.mask, *(batch.groups[n] for n in sorted(batch.groups))):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _facts_hash(facts: Sequence[io.QuestionFacts]) -> str:
    """Covers what rows say without the model, so also what of a file becomes metadata."""
    told = [fact._asdict() | {"metadata": dict(fact.metadata)} for fact in facts]
    return hashlib.sha256(io.dumps(told).encode()).hexdigest()
