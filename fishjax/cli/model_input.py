"""The model of a run, and what manifests say of it."""

import pathlib
from typing import Any

from jax.sharding import Mesh

from fishjax.cli.adapters import find_adapter
from fishjax.cli.meshes import placement_of
from fishjax.models import LanguageModel, load

__all__ = ["model_facts", "read_model"]


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
      InputError: there is no such adapter, or it is another model's.
      RowsError: the adapter is damaged.
      TokenizerError: the tokenizer cannot be used.
    """
    found = None if adapter is None else find_adapter(adapter)
    model = load(path, dtype=dtype, remat=remat, placement=placement_of(mesh))
    return model if found is None else found.beside(model)


def model_facts(model: LanguageModel) -> dict[str, Any]:
    """For a manifest: the name, and the commit of a model of the Hugging Face hub."""
    return {"model": model.name} | ({} if model.hub is None else {"model_hub": model.hub})
