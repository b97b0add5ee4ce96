"""Hugging Face directories: `config.json`, safetensors, tokenizer; read, placed, written."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np

from fishjax.trees import flatten_with_paths

from .config import DecoderConfig
from .config_keys import ConfigKeys
from .decoder import init_params
from .errors import CheckpointError
from .families import IGNORABLE, SWITCHES, Family, Tensor, family_of
from .safetensor_files import SafetensorFiles, write_tensors

__all__ = ["Placement", "config_from_json", "fingerprint", "read_params", "write_params"]

Placement = Callable[[str, tuple[int, ...]], jax.sharding.Sharding | None]
"""`(path, shape) -> sharding` of a parameter, None for the default device."""


def config_from_json(
    values: dict[str, Any], name: str = "config.json"
) -> tuple[DecoderConfig, Family]:
    """The architecture that a `config.json` describes.

    Args:
      values: the parsed file.
      name: of the file, for errors.

    Raises:
      CheckpointError: an unknown family or key, or a value that is missing or not supported.
    """
    keys = ConfigKeys(values, name)
    family = family_of(keys)
    try:
        config = family.config(keys)
    except ValueError as error:  # of the config, or of a part of the file that says its own name
        message = str(error)
        raise CheckpointError(message if name in message else f"{name}: {message}") from None
    for key, off in SWITCHES.items():
        keys.fixed(key, *off)
    keys.refuse_others(IGNORABLE | family.ignorable)
    return config, family


def read_params(
    directory: pathlib.Path,
    config: DecoderConfig,
    family: Family,
    *,
    dtype: str | None = "float32",
    placement: Placement | None = None,
) -> dict[str, Any]:
    """Streams the tensors of a directory into parameters, one tensor on the host at a time.

    Args:
      directory: with the safetensors files.
      config: of the model.
      family: of the model.
      dtype: of the parameters; None keeps that of the files.
      placement: where each parameter goes.

    Raises:
      CheckpointError: a tensor is missing, unexpected, of another shape, or not finite, or a tied
        model's files have a head of their own.
    """
    shapes = _shapes(config)
    flat: dict[str, jax.Array] = {}
    files = SafetensorFiles(directory)
    names = _names(files, family, config)
    if config.tied:
        _check_tied(files, names, family, config)
    for tensor in family.tensors(config):
        slots = {
            path: _Slot(shapes[path], placement(path, shapes[path]) if placement else None)
            for path in tensor.paths
        }
        for layer in _layers(tensor, config):
            raw = files.read(names[tensor.name.format(layer)])
            for path, part in _parts(tensor, raw, shapes, config).items():
                slots[path].put(layer, part, part.dtype if dtype is None else jnp.dtype(dtype))
            del raw, part
        flat |= {path: slot.array for path, slot in slots.items()}
    return nested(flat)


def write_params(
    directory: pathlib.Path, params: dict[str, Any], config: DecoderConfig, family: Family
) -> None:
    """Writes `model.safetensors` with the family's names; reads back as the same parameters.

    Raises:
      ValueError: `params` does not fit `config`.
    """
    paths, leaves, _ = flatten_with_paths(params)
    flat = dict(zip(paths, leaves, strict=True))
    shapes = _shapes(config)
    for path in shapes.keys() | flat.keys():
        if shapes.get(path) != (np.shape(flat[path]) if path in flat else None):
            raise ValueError(
                f"parameter {path!r} does not fit the config: expected shape {shapes.get(path)}"
            )
    tensors = {}
    for tensor in family.tensors(config):
        for layer in _layers(tensor, config):
            own = [flat[p] if layer is None else flat[p][layer] for p in tensor.paths]
            parts = [np.asarray(jax.device_get(x)) for x in own]
            joined = parts[0] if len(parts) == 1 else np.stack(parts)
            whole = einops.rearrange(
                joined, reversed_pattern(tensor.pattern), **_axes(tensor, config)
            )
            tensors[tensor.name.format(layer)] = np.ascontiguousarray(whole)
    write_tensors(directory / "model.safetensors", tensors)


def fingerprint(directory: pathlib.Path) -> str:
    """SHA-256, in hex, of `config.json` and every shard."""
    digest = hashlib.sha256()
    for file in [directory / "config.json", *SafetensorFiles(directory).files]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      CheckpointError: it cannot be read or is no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: malformed JSON ({error}): copy it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is a {type(values).__name__}: expected a JSON object")
    return values


class _Slot:
    """One parameter while its layers arrive."""

    def __init__(self, shape: tuple[int, ...], sharding: Any):
        self._shape, self._sharding = shape, sharding
        self.array: Any = None

    def put(self, layer: int | None, part: np.ndarray, dtype: Any) -> None:
        """Places the whole parameter, or one layer of it."""
        part = np.asarray(part, dtype)
        if layer is None:
            self.array = jax.device_put(part, self._sharding)
            return
        if self.array is None:
            self.array = jnp.zeros(self._shape, dtype, device=self._sharding)
        self.array = _set_layer(self.array, _placed_layer(part, self._sharding), layer)


def _placed_layer(part: np.ndarray, sharding: Any) -> jax.Array:
    if isinstance(sharding, jax.sharding.NamedSharding):
        spec = jax.sharding.PartitionSpec(*sharding.spec[1:])
        return jax.device_put(part, jax.sharding.NamedSharding(sharding.mesh, spec))
    return jax.device_put(part, sharding)


_set_layer = jax.jit(
    lambda whole, part, layer: jax.lax.dynamic_update_index_in_dim(whole, part, layer, 0),
    donate_argnums=0,
)


def _shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    paths, leaves, _ = flatten_with_paths(params)
    return {path: leaf.shape for path, leaf in zip(paths, leaves, strict=True)}


def _layers(tensor: Tensor, config: DecoderConfig) -> list[int | None]:
    return list(range(config.num_layers)) if "{}" in tensor.name else [None]


def _names(files: SafetensorFiles, family: Family, config: DecoderConfig) -> dict[str, str]:
    """Canonical name to the name in the files, which may leave out the prefix.

    Raises:
      CheckpointError: tensors are missing or unexpected.
    """
    wanted = [
        tensor.name.format(layer)
        for tensor in family.tensors(config)
        for layer in _layers(tensor, config)
    ]
    found, missing = {}, []
    for name in wanted:
        short = name.removeprefix(family.prefix)
        chosen = next((n for n in (name, short) if n in files), None)
        if chosen is None:
            missing.append(name)
        else:
            found[name] = chosen
    known = set(found.values()) | {"lm_head.weight", "embed_out.weight"}
    extra = [n for n in files if n not in known and not n.endswith(family.buffers)]
    if missing or extra:
        told = [f"lack {few(missing)}"] * bool(missing) + [f"have {few(extra)}"] * bool(extra)
        raise CheckpointError(
            f"the safetensors files {' and '.join(told)}: they are not those of this config.json"
        )
    return found


def _check_tied(
    files: SafetensorFiles, names: dict[str, str], family: Family, config: DecoderConfig
) -> None:
    """Raises CheckpointError where a head beside the embedding is another matrix.

    Some versions of transformers then use the head, others the embedding.
    """
    embedding = names[family.tensors(config)[0].name]
    head = family.tensors(dataclasses.replace(config, tied=False))[-1].name
    if head in files and not files.equal(embedding, head):
        raise CheckpointError(
            f"tensors {embedding!r} and {head!r} differ, but by config.json the head is the "
            "embedding: set tie_word_embeddings to false in it, or take the head out of the files"
        )


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _parts(
    tensor: Tensor, raw: np.ndarray, shapes: dict[str, tuple[int, ...]], config: DecoderConfig
) -> dict[str, np.ndarray]:
    """The parameters (of one layer) that a tensor holds, checked."""
    own = [shapes[p][1:] if p.startswith("layers/") else shapes[p] for p in tensor.paths]
    like = np.broadcast_to(np.float32(0), own[0] if len(own) == 1 else (len(own), *own[0]))
    axes = _axes(tensor, config)
    expected = einops.rearrange(like, reversed_pattern(tensor.pattern), **axes).shape
    if raw.shape != expected:
        raise CheckpointError(
            f"tensor {tensor.name!r} has shape {raw.shape}: expected {expected} by config.json"
        )
    ours = einops.rearrange(raw, tensor.pattern, **axes)
    return dict(zip(tensor.paths, [ours] if len(own) == 1 else list(ours), strict=True))


def _axes(tensor: Tensor, config: DecoderConfig) -> dict[str, int]:
    sizes = dict(k=config.head_width, part=len(tensor.paths))
    return {n: size for n, size in sizes.items() if re.search(rf"\b{n}\b", tensor.pattern)}


def reversed_pattern(pattern: str) -> str:
    """The einops pattern of the inverse."""
    return " -> ".join(reversed(pattern.split(" -> ")))


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """A nested dict from leaves by path."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *outer, last = path.split("/")
        node = tree
        for name in outer:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree
