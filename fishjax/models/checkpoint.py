"""From a path to a language model, and back."""

import dataclasses
import hashlib
import json
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fishjax.trees import path_string

from . import huggingface, llama2c
from .config import DecoderConfig
from .decoder import decoder_apply_fn
from .errors import CheckpointError
from .generation_config import read_eos_ids
from .hub import locate
from .hub_tokenizer import read_hub_tokenizer
from .huggingface import Placement
from .new_directory import new_directory, new_file
from .tokenizer import MissingTokenizer, Tokenizer
from .tokenizer_file import read_llama2c_tokenizer

__all__ = ["LanguageModel", "load", "save_huggingface", "save_llama2c"]


_PICKLED = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # torch.save: a zip archive, and the older format


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A pretrained decoder as a pure function and its parameters.

    Attributes:
      apply_fn: `(params, token_ids [N, T], positions [N, A] or None) -> logits [N, T or A, V]`;
        see `decoder_apply_fn`.
      params: nested dict of float32 arrays; see `init_params`.
      tokenizer: text to ids and back.
      config: the architecture.
      fingerprint: SHA-256 of the checkpoint's bytes, in hex.
      name: the checkpoint's file name without its ending, or the directory's.
      adds_bos: prompts start with `tokenizer.bos_id`.
      source: `config.json` of a Hugging Face directory, None for other checkpoints.
      path: local file or directory it was read from.
      hub: `org/name@commit` on the Hugging Face hub, None for a local model.
      eos_ids: that end what is generated, by `generation_config.json`; empty where it has none.
    """

    apply_fn: Callable[..., jax.Array]
    params: dict[str, Any]
    tokenizer: Tokenizer
    config: DecoderConfig
    fingerprint: str
    name: str
    adds_bos: bool
    source: dict[str, Any] | None = None
    path: pathlib.Path | None = None
    hub: str | None = None
    eos_ids: tuple[int, ...] = ()


def load(
    path: str | pathlib.Path,
    *,
    dtype: str = "float32",
    remat: bool = False,
    param_dtype: str | None = "float32",
    placement: Placement | None = None,
) -> LanguageModel:
    """Loads a Hugging Face directory, or a llama2.c checkpoint.

    A directory with `config.json` is read as Hugging Face's: safetensors in one or many shards,
    streamed one tensor at a time, with `tokenizer.json` (or `vocab.json` and `merges.txt`).
    Families: GPT-2, GPT-NeoX, Llama, Mistral, Qwen2, Qwen3, Gemma 2 and 3 (text). Nothing is ever
    unpickled or executed. Otherwise a llama2.c checkpoint, legacy float32 or version-2 int8
    (dequantised), a file or a directory with exactly one `*.bin`; its tokenizer is the one file
    `tok*.bin` beside it. Without a tokenizer the model loads and fails only when text is needed.

    Args:
      path: file or directory; or `org/name[@revision]` of the Hugging Face hub where no such
        path exists, which needs the package `huggingface_hub`.
      dtype: compute dtype.
      remat: recompute each block's activations in the backward pass.
      param_dtype: of the parameters, whatever `dtype` is; None keeps that of a Hugging Face
        directory's files.
      placement: `(path, shape) -> sharding` of each parameter; see `tensor_parallel`.

    Returns:
      The model.

    Raises:
      CheckpointError: no or several checkpoints, a truncated, foreign or damaged file, an
        unknown key of `config.json`, ends in `generation_config.json` that are no ids, missing or
        unexpected tensors, NaN or infinite weights, or a tokenizer of another vocabulary size; or
        the hub cannot be reached.
      TokenizerError: the tokenizer file is damaged.
      ValueError: an unknown dtype.
    """
    found = locate(path)
    if (found.path / "config.json").exists():
        model = _load_hub(found.path, dtype, remat, param_dtype, placement)
    else:
        model = _load_llama2c(found.path, dtype, remat, param_dtype or "float32", placement)
    name = found.name or model.name
    return dataclasses.replace(model, path=found.path, hub=found.hub, name=name)


def save_huggingface(path: str | pathlib.Path, model: LanguageModel) -> None:
    """Writes `config.json` and `model.safetensors` of a model loaded from such a directory.

    Tokenizer files are not written: copy them from the source.

    Args:
      path: a directory that does not exist yet, or is empty.
      model: with `source`; its parameters may have been changed, not their shapes.

    Raises:
      CheckpointError: the model has no `source`, or the directory is not empty.
      ValueError: the parameters do not fit the config.
    """
    directory = pathlib.Path(path)
    if model.source is None:
        raise CheckpointError(
            f"{model.name} does not come from a Hugging Face directory: there is no config.json "
            "to write; use save_llama2c"
        )
    config, family = huggingface.config_from_json(model.source)
    with new_directory(directory) as partial:
        huggingface.write_params(partial, model.params, config, family)
        (partial / "config.json").write_text(json.dumps(model.source, indent=1) + "\n")


def _load_hub(
    path: pathlib.Path,
    dtype: str,
    remat: bool,
    param_dtype: str | None,
    placement: Placement | None,
) -> LanguageModel:
    source = huggingface.read_json(path / "config.json")
    try:
        config, family = huggingface.config_from_json(source)
        config = dataclasses.replace(config, dtype=dtype, remat=remat)
        eos_ids = read_eos_ids(path, config.vocab_size)
        params = huggingface.read_params(
            path, config, family, dtype=param_dtype, placement=placement
        )
    except CheckpointError as error:
        message = str(error)
        raise CheckpointError(message if str(path) in message else f"{path}: {message}") from None
    tokenizer = read_hub_tokenizer(path, source)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer of {path} has {tokenizer.vocab_size} tokens, the model "
            f"{config.vocab_size}: put the checkpoint's own tokenizer beside it"
        )
    missing = MissingTokenizer(
        f"{path} has neither tokenizer.json nor vocab.json and merges.txt: text needs them",
        config.vocab_size,
    )
    return LanguageModel(
        apply_fn=decoder_apply_fn(config),
        params=params,
        tokenizer=tokenizer or missing,
        config=config,
        fingerprint=huggingface.fingerprint(path),
        name=path.resolve().name,
        adds_bos=tokenizer.adds_bos if tokenizer else False,
        source=source,
        eos_ids=eos_ids,
    )


def _load_llama2c(
    path: pathlib.Path, dtype: str, remat: bool, param_dtype: str, placement: Placement | None
) -> LanguageModel:
    file = _find_checkpoint(path)
    header, data = _read(file)
    config = dataclasses.replace(header.config, dtype=dtype, remat=remat)
    try:
        tensors = llama2c.read_tensors(data, header)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return LanguageModel(
        apply_fn=decoder_apply_fn(config),
        params=_placed(llama2c.to_params(tensors, config), param_dtype, placement),
        tokenizer=_find_tokenizer(file, config),
        config=config,
        fingerprint=hashlib.sha256(data).hexdigest(),
        name=file.stem,
        adds_bos=True,
    )


def _placed(params: Any, dtype: str, placement: Placement | None) -> Any:
    def put(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        array = np.asarray(leaf, jnp.dtype(dtype))
        sharding = placement(path_string(path), array.shape) if placement else None
        return jnp.asarray(array) if sharding is None else jax.device_put(array, sharding)

    return jax.tree_util.tree_map_with_path(put, params)


def save_llama2c(path: str | pathlib.Path, params: dict[str, Any], config: DecoderConfig) -> None:
    """Writes a legacy float32 checkpoint that `load` and llama2.c read.

    Raises:
      CheckpointError: `config` has something the format cannot state, as another RoPE base, or a
        weight is NaN or infinite.
      ValueError: `params` does not fit `config`.
    """
    stated = {f.name for f in dataclasses.fields(config) if f.default is dataclasses.MISSING}
    kept = {name: getattr(config, name) for name in (*stated, "tied", "dtype", "remat")}
    for field in dataclasses.fields(config):
        value, always = getattr(config, field.name), getattr(DecoderConfig(**kept), field.name)
        if value != always:
            raise CheckpointError(
                f"{field.name} is {value}: llama2.c files always mean {always}; use "
                "save_huggingface for a model of that kind"
            )
    jax.eval_shape(decoder_apply_fn(config), params, jnp.zeros((1, 1), jnp.int32))
    tensors = llama2c.from_params(params, config)
    vocab_size = config.vocab_size if config.tied else -config.vocab_size
    start = struct.pack(
        "<7i",
        *(config.width, config.hidden_width, config.num_layers, config.num_heads),
        *(config.num_kv_heads, vocab_size, config.context_length),
    )
    header = llama2c.parse_header(start)
    data = start + b"".join(tensors[n].astype("<f4").tobytes() for n in llama2c.file_order(header))
    llama2c.read_tensors(data, header)
    new_file(pathlib.Path(path), data)


def read_llama2c_config(path: pathlib.Path) -> DecoderConfig:
    """The architecture in the header of a llama2.c checkpoint.

    Raises:
      CheckpointError: as `load`.
    """
    return _read_header(_find_checkpoint(path)).config


def _find_checkpoint(path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: expected a .bin file or a directory")
    found = sorted(p for p in path.glob("*.bin") if not p.match("tok*.bin"))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise CheckpointError(
            f"directory {path} holds {len(found)} checkpoints ({names}): expected exactly one "
            "*.bin besides the tokenizer tok*.bin; give the path of the file"
        )
    return found[0]


def _find_tokenizer(file: pathlib.Path, config: DecoderConfig) -> Tokenizer:
    found = sorted(p for p in file.parent.glob("tok*.bin") if p != file)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        return MissingTokenizer(
            f"{len(found)} tokenizers ({names}) beside {file}: expected exactly one file "
            "tok*.bin or tokenizer.bin; text needs it",
            config.vocab_size,
        )
    tokenizer = read_llama2c_tokenizer(found[0])
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"tokenizer {found[0]} has {tokenizer.vocab_size} tokens, checkpoint {file.name} "
            f"has {config.vocab_size}: put the checkpoint's own tokenizer beside it"
        )
    return tokenizer


def _read(file: pathlib.Path) -> tuple[llama2c.Header, bytes]:
    header = _read_header(file)
    try:
        return header, file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None


def _read_header(file: pathlib.Path) -> llama2c.Header:
    """Checks the size of the file against what its header implies."""
    try:
        size = file.stat().st_size
        if size == 0:
            raise CheckpointError(f"{file} is empty: expected a llama2.c checkpoint")
        with file.open("rb") as stream:
            start = stream.read(llama2c.VERSION_2_HEADER)
        if start.startswith(_PICKLED):
            raise CheckpointError(
                "not a llama2.c checkpoint but a pickled one of PyTorch, which is never read "
                "because it can execute code: convert it to safetensors"
            )
        header = llama2c.parse_header(start)
        expected = llama2c.expected_size(header)
        if size != expected:
            kind = "truncated" if size < expected else "too long"
            raise CheckpointError(
                f"it has {size} bytes, its header means {expected}: {kind}, or not a "
                "llama2.c checkpoint; copy or export it again"
            )
        return header
    except CheckpointError as error:
        message = str(error)
        raise CheckpointError(message if str(file) in message else f"{file}: {message}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
