"""The architecture and parameter shapes of a checkpoint, without reading its weights."""

import pathlib
from typing import Any, NamedTuple

import jax

from . import huggingface
from .checkpoint import read_llama2c_config
from .config import DecoderConfig
from .decoder import init_params
from .hub import CONFIG_FILES, locate

__all__ = ["Described", "describe"]


class Described(NamedTuple):
    """A checkpoint before it is loaded.

    Attributes:
      config: the architecture.
      shapes: tree of `jax.ShapeDtypeStruct` like the parameters, in float32.
      family: `model_type` of a Hugging Face directory, or "llama2.c".
    """

    config: DecoderConfig
    shapes: dict[str, Any]
    family: str


def describe(path: str | pathlib.Path) -> Described:
    """Reads the config of a Hugging Face directory, or the header of a llama2.c checkpoint.

    A directory needs no more than its `config.json`, and no more is fetched of a model on the
    Hugging Face hub (`org/name[@revision]`).

    Raises:
      CheckpointError: neither is there, it cannot be used, or the hub cannot be reached.
    """
    path = locate(path, CONFIG_FILES).path
    file = path if path.name == "config.json" else path / "config.json"
    if file.exists():
        values = huggingface.read_json(file)
        config, _ = huggingface.config_from_json(values, str(file))
        family = values["model_type"]
    else:
        config, family = read_llama2c_config(path), "llama2.c"
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    return Described(config, shapes, family)
