"""What fine-tuning leaves behind: adapters, a checkpoint, and how to go on with them."""

import dataclasses
import pathlib
import shutil
from typing import Any

from fishjax import io
from fishjax.cli.finetune_job import FinetuneJob
from fishjax.io.checkpoints import save_tree
from fishjax.io.files import writing
from fishjax.models import (
    LanguageModel,
    adapted,
    merged,
    save_adapter,
    save_huggingface,
    save_llama2c,
)
from fishjax.models.new_directory import new_directory

__all__ = ["write_outputs"]

_TOKENIZER_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def write_outputs(
    job: FinetuneJob, trained: Any, directory: pathlib.Path, source: pathlib.Path, *, merge: bool
) -> list[str]:
    """Writes adapters, or a checkpoint, and says how to go on.

    Args:
      job: that is finished.
      trained: adapters, or all parameters.
      directory: of the run.
      source: the checkpoint that was loaded.
      merge: also write a checkpoint with the adapters in its weights.

    Returns:
      Lines to print.

    Raises:
      OutputError: the disk failed; what was written before is intact.
    """
    if job.lora is None:
        tuned = dataclasses.replace(job.model, params=trained)
        return _write_model(directory / io.MODEL_NAME, tuned, source)
    lines = [f"adapters: {directory / io.ADAPTERS_NAME}"]
    save_tree(directory / io.ADAPTERS_NAME, trained)
    python = [f"model = models.load({str(source)!r})"]
    imports = ["from fishjax import models"]
    if job.model.source is not None:
        peft = directory / io.PEFT_NAME
        if not peft.exists():
            with writing(peft):
                save_adapter(peft, trained, job.lora, job.model)
        lines.append(f"for PEFT: {peft}")
        pair = f"*models.load_adapter({str(peft)!r}, model)"
    else:
        imports.append("from fishjax.io.checkpoints import load_tree")
        pair = f"models.{job.lora!r}, load_tree({str(directory / io.ADAPTERS_NAME)!r})"
    python.append(f"model = models.adapted(model, {pair})")
    if merge:
        tuned = merged(adapted(job.model, job.lora, trained))
        lines += _write_model(directory / io.MODEL_NAME, tuned, source)
    else:
        lines.append("for a checkpoint with the adapters in its weights: again with --merge")
        lines.append(_go_on(f"{source} --adapter {directory}"))
    return [*lines, "in Python:", *(f"  {line}" for line in ["; ".join(imports), *python])]


def _write_model(path: pathlib.Path, model: LanguageModel, source: pathlib.Path) -> list[str]:
    """A directory that `load` reads, with the tokenizer of the source; unless it is there."""
    if not path.exists():
        folder = source if source.is_dir() else source.parent
        with writing(path), new_directory(path) as partial:
            if model.source is not None:
                save_huggingface(partial, model)
                files = [folder / name for name in _TOKENIZER_FILES]
            else:
                save_llama2c(partial / f"{model.name}.bin", model.params, model.config)
                files = list(folder.glob("tok*.bin"))
            for file in files:
                if file.exists():
                    shutil.copy(file, partial)
    return [f"model: {path}", _go_on(str(path))]


def _go_on(model: str) -> str:
    return (
        f"go on with: fishjax score --model {model} --task multiple_choice --data QUESTIONS.jsonl "
        "--out RUN"
    )
