"""From a path to a language model, and back."""

import dataclasses
import hashlib
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import llama2c
from .config import DecoderConfig
from .decoder import decoder_apply_fn
from .errors import CheckpointError
from .tokenizer import MissingTokenizer, Tokenizer
from .tokenizer_file import read_llama2c_tokenizer

__all__ = ["LanguageModel", "load", "save_llama2c"]


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
      name: the checkpoint's file name without its ending.
      adds_bos: prompts start with `tokenizer.bos_id`.
    """

    apply_fn: Callable[..., jax.Array]
    params: dict[str, Any]
    tokenizer: Tokenizer
    config: DecoderConfig
    fingerprint: str
    name: str
    adds_bos: bool


def load(path: str | pathlib.Path, *, dtype: str = "float32", remat: bool = False) -> LanguageModel:
    """Loads a llama2.c checkpoint: legacy float32, or version-2 int8 (dequantised).

    Args:
      path: a checkpoint file, or a directory with exactly one checkpoint `*.bin`. The
        tokenizer is the one file `tok*.bin` beside it; without one, the model loads and fails
        only when text is needed.
      dtype: compute dtype; parameters are float32 whatever it is.
      remat: recompute each block's activations in the backward pass.

    Returns:
      The model.

    Raises:
      CheckpointError: no or several checkpoints, a truncated, foreign or damaged file, NaN or
        infinite weights, or a tokenizer of another vocabulary size.
      TokenizerError: the tokenizer file is damaged.
      ValueError: an unknown dtype.
    """
    file = _find_checkpoint(pathlib.Path(path))
    header, data = _read(file)
    config = dataclasses.replace(header.config, dtype=dtype, remat=remat)
    try:
        tensors = llama2c.read_tensors(data, header)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    return LanguageModel(
        apply_fn=decoder_apply_fn(config),
        params=jax.tree.map(jnp.asarray, llama2c.to_params(tensors, config)),
        tokenizer=_find_tokenizer(file, config),
        config=config,
        fingerprint=hashlib.sha256(data).hexdigest(),
        name=file.stem,
        adds_bos=True,
    )


def save_llama2c(path: str | pathlib.Path, params: dict[str, Any], config: DecoderConfig) -> None:
    """Writes a legacy float32 checkpoint that `load` and llama2.c read.

    Raises:
      CheckpointError: `config` has a RoPE base or norm epsilon the format cannot state, or a
        weight is NaN or infinite.
      ValueError: `params` does not fit `config`.
    """
    if (config.rope_theta, config.norm_epsilon) != (10000.0, 1e-5):
        raise CheckpointError(
            f"rope_theta {config.rope_theta} and norm_epsilon {config.norm_epsilon}: llama2.c "
            "files always mean 10000 and 1e-5"
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
    pathlib.Path(path).write_bytes(data)


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
    """Checks the size the header implies before reading the rest."""
    try:
        size = file.stat().st_size
        if size == 0:
            raise CheckpointError(f"{file} is empty: expected a llama2.c checkpoint")
        with file.open("rb") as stream:
            header = llama2c.parse_header(stream.read(llama2c.VERSION_2_HEADER))
            expected = llama2c.expected_size(header)
            if size != expected:
                kind = "truncated" if size < expected else "too long"
                raise CheckpointError(
                    f"it has {size} bytes, its header means {expected}: {kind}, or not a "
                    "llama2.c checkpoint; copy or export it again"
                )
            stream.seek(0)
            return header, stream.read()
    except CheckpointError as error:
        message = str(error)
        raise CheckpointError(message if str(file) in message else f"{file}: {message}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
