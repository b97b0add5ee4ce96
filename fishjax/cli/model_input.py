"""The model of a run, and what manifests say of it."""

import hashlib
import pathlib
from typing import Any

from jax.sharding import Mesh

from fishjax.cli.meshes import placement_of
from fishjax.models import LanguageModel, adapted, load, load_adapter

__all__ = ["adapter_hash", "model_facts", "read_model"]


def read_model(
    path: pathlib.Path,
    *,
    dtype: str,
    mesh: Mesh | None = None,
    adapter: pathlib.Path | None = None,
    remat: bool = False,
) -> LanguageModel:
    """The model on its devices, with the adapter beside its weights if there is one.

    Raises:
      CheckpointError: the checkpoint or the adapter cannot be used.
      TokenizerError: the tokenizer cannot be used.
    """
    model = load(path, dtype=dtype, remat=remat, placement=placement_of(mesh))
    return model if adapter is None else adapted(model, *load_adapter(adapter, model))


def model_facts(model: LanguageModel) -> dict[str, Any]:
    """For a manifest: the name, and the commit of a model of the Hugging Face hub."""
    return {"model": model.name} | ({} if model.hub is None else {"model_hub": model.hub})


def adapter_hash(directory: pathlib.Path | None) -> str | None:
    """SHA-256, in hex, of an adapter's files."""
    if directory is None:
        return None
    digest = hashlib.sha256()
    for file in sorted(directory.glob("adapter_*")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
