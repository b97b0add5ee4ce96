"""Adapters of PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from fishjax.trees import flatten_with_paths

from . import huggingface
from .checkpoint import LanguageModel
from .config import DecoderConfig
from .errors import CheckpointError
from .families import Family
from .lora import check_adapters
from .lora_config import LoraConfig
from .lora_layers import ENDINGS
from .new_directory import new_directory
from .peft_config import PeftSettings, read_settings
from .peft_modules import Module, adaptable_modules, to_ours, to_theirs
from .safetensor_files import SafetensorFiles, write_tensors

__all__ = ["load_adapter", "save_adapter"]

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."

Sides = tuple[list[np.ndarray], list[np.ndarray]]


def load_adapter(
    directory: str | pathlib.Path, model: LanguageModel
) -> tuple[LoraConfig, dict[str, Any]]:
    """Reads an adapter of PEFT: plain LoRA on linear modules of the blocks.

    Where a family fuses query, key and value, each gets a copy of A and its part of B. Modules of
    lower rank than others (`rank_pattern`) are filled up with zeros, which stay zero in training;
    so are layers that have none (`layers_to_transform`, a pattern of some layers).

    Args:
      directory: with `adapter_config.json` and `adapter_model.safetensors`.
      model: the one that was adapted, loaded from a Hugging Face directory.

    Returns:
      `(lora, adapters)` for `fishjax.models.adapted(model, lora, adapters)`; float32.

    Raises:
      CheckpointError: a variant of LoRA or a key that is not supported (named), modules of
        different scales, tensors that are missing, unexpected, of another shape or not finite, a
        pickled file, or a model that is not from a Hugging Face directory.
    """
    directory = pathlib.Path(directory)
    values = huggingface.read_json(directory / _CONFIG)
    config, family = _architecture(
        model,
        f"{directory} is an adapter of PEFT for {_base_of(values)}: load that one from its "
        "Hugging Face directory",
    )
    try:
        settings = read_settings(values, _CONFIG)
        ending = f"; the adapter was made for {_base_of(values)}, the model is {model.name!r}"
        files = SafetensorFiles(directory, _TENSORS)
        sides, names = _read_sides(files, settings, config, family, ending)
        lora = _lora_of(names, tuple(p for m in sides for p in m.paths), settings)
    except CheckpointError as error:
        message = str(error)
        prefix = "" if str(directory) in message else f"{directory}: "
        raise CheckpointError(prefix + message) from None
    flat = {}
    for module, (a, b) in sides.items():
        for path, pair in to_ours(module, a, b, lora.rank).items():
            flat |= {
                path + e: jnp.asarray(x, jnp.float32) for e, x in zip(ENDINGS, pair, strict=True)
            }
    return lora, huggingface.nested(flat)


def save_adapter(
    directory: str | pathlib.Path, adapters: dict[str, Any], lora: LoraConfig, model: LanguageModel
) -> None:
    """Writes adapters so that PEFT computes the same with them.

    PEFT has one A for the fused query, key and value of GPT-2 and GPT-NeoX. Where ours differ the
    module is written with their ranks added up and a block-diagonal B: the same function, which
    reads back as adapters of that larger rank.

    Args:
      directory: does not exist yet, or is empty.
      adapters: as `init_adapters` makes them.
      lora: what they are.
      model: loaded from a Hugging Face directory.

    Raises:
      CheckpointError: the directory is not empty, or the model is from no such directory: PEFT has
        no names for its modules.
      ValueError: the adapters are not those that `lora` says for this model.
    """
    config, family = _architecture(
        model, "store the adapters as a tree (fishjax.io.checkpoints.save_tree)"
    )
    check_adapters(adapters, dataclasses.replace(config, lora=lora))
    paths, leaves, _ = flatten_with_paths(adapters)
    flat = {path: np.asarray(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    tensors, ranks = {}, {}
    for module in adaptable_modules(config, family):
        pairs = [
            (flat[path + ENDINGS[0]], flat[path + ENDINGS[1]])
            if path + ENDINGS[0] in flat
            else None
            for path in module.paths
        ]
        sides = to_theirs(module, pairs)
        if sides is None:
            continue
        ranks[module] = sides[0][0].shape[0]
        for letter, whole in zip("AB", sides, strict=True):
            for layer, array in enumerate(whole):
                tensors[f"{_PREFIX}{module.name.format(layer)}.lora_{letter}.weight"] = array
    values = _config_json(lora, ranks, model)
    with new_directory(pathlib.Path(directory)) as partial:
        write_tensors(partial / _TENSORS, tensors)
        (partial / _CONFIG).write_text(json.dumps(values, indent=1) + "\n")


def _architecture(model: LanguageModel, advice: str) -> tuple[DecoderConfig, Family]:
    if model.source is None:
        raise CheckpointError(
            f"{model.name} does not come from a Hugging Face directory, so PEFT has no names for "
            f"its modules; {advice}"
        )
    return huggingface.config_from_json(model.source)


def _base_of(values: dict[str, Any]) -> str:
    """The model that an adapter says it was made for."""
    return repr(values.get("base_model_name_or_path") or "a model that it does not name")


def _read_sides(
    files: SafetensorFiles,
    settings: PeftSettings,
    config: DecoderConfig,
    family: Family,
    ending: str,
) -> tuple[dict[Module, Sides], list[str]]:
    """A and B of every layer of the adapted modules, as in the file, and who has an adapter.

    Raises:
      CheckpointError: tensors are missing or unexpected, or have another shape; with `ending`.
    """
    modules = adaptable_modules(config, family)
    short = not any(name.startswith(_PREFIX + family.prefix) for name in files)
    stems = {m: m.name.removeprefix(family.prefix) if short else m.name for m in modules}
    found = {m: names for m, stem in stems.items() if (names := _taken(stem, settings, config))}
    if not found:
        raise CheckpointError(
            f"{_CONFIG}: target_modules {settings.targets!r} takes none of the model's linear "
            f"modules: expected some of {', '.join(m.target for m in modules)}{ending}"
        )
    taken = [name for names in found.values() for name in names]
    _check_tensors(files, taken, settings, ending)
    read: dict[Module, Sides] = {}
    for module in found:
        sides = [
            _pair(files, module, name, settings, ending)
            for name in map(stems[module].format, range(config.num_layers))
        ]
        read[module] = [a for a, _ in sides], [b for _, b in sides]
    return read, taken


def _taken(stem: str, settings: PeftSettings, config: DecoderConfig) -> list[str]:
    """A module's names in the layers where it has an adapter."""
    return [n for n in map(stem.format, range(config.num_layers)) if settings.takes(n)]


def _tensor(name: str, letter: str) -> str:
    return f"{_PREFIX}{name}.lora_{letter}.weight"


def _check_tensors(
    files: SafetensorFiles, names: list[str], settings: PeftSettings, ending: str
) -> None:
    """Raises CheckpointError where the files have other tensors than A and B of these modules."""
    wanted = {_tensor(name, letter) for name in names for letter in "AB"}
    missing, extra = sorted(wanted - set(files)), sorted(set(files) - wanted)
    if missing or extra:
        told = [f"lacks {huggingface.few(missing)}"] * bool(missing)
        told += [f"has {huggingface.few(extra)}"] * bool(extra)
        raise CheckpointError(
            f"{_TENSORS} {' and '.join(told)}: expected A and B of every linear module that "
            f"target_modules {settings.targets!r} takes{ending}"
        )


def _pair(
    files: SafetensorFiles, module: Module, name: str, settings: PeftSettings, ending: str
) -> tuple[np.ndarray, np.ndarray]:
    """A and B of one layer; zeros where it has no adapter.

    Raises:
      CheckpointError: they have other shapes.
    """
    rank = settings.rank_of(name)
    expected = (rank, module.num_inputs), (module.num_outputs, rank)
    if not settings.takes(name):
        return np.zeros(expected[0], np.float32), np.zeros(expected[1], np.float32)
    a, b = (files.read(_tensor(name, letter)) for letter in "AB")
    if (a.shape, b.shape) != expected:
        raise CheckpointError(
            f"A and B of {name} have shapes {a.shape} and {b.shape}: expected "
            f"{expected[0]} and {expected[1]} by {_CONFIG} and the model{ending}"
        )
    return a, b


def _lora_of(names: list[str], paths: tuple[str, ...], settings: PeftSettings) -> LoraConfig:
    """One configuration for all modules.

    Raises:
      CheckpointError: the modules have different scales.
    """
    first = settings.scale_of(names[0])
    for name in names:
        if not math.isclose(settings.scale_of(name), first, rel_tol=1e-9):
            raise CheckpointError(
                f"{_CONFIG}: rank_pattern and alpha_pattern give {names[0]} the scale {first} and "
                f"{name} {settings.scale_of(name)}: expected one scale for all; merge this adapter "
                "into its model with PEFT instead"
            )
    largest = max(names, key=settings.rank_of)
    return LoraConfig(
        rank=settings.rank_of(largest),
        alpha=settings.alpha_of(largest),
        targets=tuple(path.removeprefix("layers/") for path in paths),
        dropout=settings.dropout,
        rank_stabilised=settings.rank_stabilised,
    )


def _config_json(
    lora: LoraConfig, ranks: dict[Module, int], model: LanguageModel
) -> dict[str, Any]:
    """What PEFT reads; a larger rank comes with the alpha that keeps the scale."""
    larger = {m.target: rank for m, rank in ranks.items() if rank != lora.rank}
    power = 0.5 if lora.rank_stabilised else 1
    alphas = {name: lora.alpha * (rank / lora.rank) ** power for name, rank in larger.items()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": (model.source or {}).get("_name_or_path") or model.name,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilised,
        "target_modules": [module.target for module in ranks],
        "rank_pattern": larger,
        "alpha_pattern": alphas,
        "fan_in_fan_out": any(module.input_first for module in ranks),
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
