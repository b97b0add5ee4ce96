"""llama2.c checkpoint files: headers, the order of tensors, and our orientation of them.

llama2.c stores every matrix as `[out, in]` and stacks layers; fishjax wants `[in, out]` with
heads as an axis of their own. `FILE_TENSORS` and `to_params` / `from_params` are the only
places that know both.
"""

import dataclasses
import struct
from typing import Any

import numpy as np

from .config import DecoderConfig
from .errors import CheckpointError

__all__ = ["Header", "expected_size", "from_params", "parse_header", "read_tensors", "to_params"]

MAGIC = 0x616B3432  # "ak42"
LEGACY_HEADER = 28
VERSION_2_HEADER = 256

NORMS = ("attention_norm", "mlp_norm", "final_norm")
LEGACY_ORDER = (
    "embedding", "attention_norm", "query", "key", "value", "output", "mlp_norm",
    "gate", "down", "up", "final_norm", "rope", "head",
)  # fmt: skip
VERSION_2_ORDER = (
    *NORMS, "embedding", "query", "key", "value", "output", "gate", "down", "up", "head",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes of a checkpoint say.

    Attributes:
      config: the architecture.
      size: bytes before the first tensor.
      group_size: weights that share one scale; 0 for float32 files.
    """

    config: DecoderConfig
    size: int
    group_size: int


def parse_header(start: bytes) -> Header:
    """Recognises the format from the first 256 bytes of a file.

    Raises:
      CheckpointError: no llama2.c header, an unsupported version, or fields that make no model.
    """
    if len(start) < LEGACY_HEADER:
        raise CheckpointError(
            f"{len(start)} bytes are too few for a llama2.c header of {LEGACY_HEADER}"
        )
    if struct.unpack_from("<I", start)[0] != MAGIC:
        fields = struct.unpack_from("<7i", start)
        return Header(_config(fields, tied=fields[5] > 0), LEGACY_HEADER, 0)
    version = struct.unpack_from("<i", start, 4)[0]
    if version != 2:
        raise CheckpointError(
            f"llama2.c format version {version}: expected version 2 (int8) or the legacy "
            "float32 format; export it again with llama2.c's export.py --version 0 or 2"
        )
    if len(start) < VERSION_2_HEADER:
        raise CheckpointError(f"{len(start)} bytes are too few for a version-2 header of 256")
    shared, group_size = struct.unpack_from("<Bi", start, 36)
    if shared not in (0, 1) or group_size < 1:
        raise CheckpointError(
            f"version-2 header with shared-classifier byte {shared} and group size {group_size}: "
            "expected 0 or 1, and a positive group size; the file is damaged"
        )
    config = _config(struct.unpack_from("<7i", start, 8), tied=shared == 1)
    return Header(config, VERSION_2_HEADER, group_size)


def _config(fields: tuple[int, ...], *, tied: bool) -> DecoderConfig:
    width, hidden_width, num_layers, num_heads, num_kv_heads, vocab_size, context_length = fields
    try:
        return DecoderConfig(
            vocab_size=abs(vocab_size),
            width=width,
            hidden_width=hidden_width,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            context_length=context_length,
            tied=tied,
        )
    except ValueError as error:
        raise CheckpointError(
            f"not a llama2.c checkpoint, or a damaged one: read as a header, its first bytes "
            f"say {error}"
        ) from None


def file_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor as stored: matrices `[L, out, in]`."""
    layers, d, f = config.num_layers, config.width, config.hidden_width
    kv = config.num_kv_heads * config.head_width
    shapes = {
        "embedding": (config.vocab_size, d),
        "attention_norm": (layers, d),
        "query": (layers, d, d),
        "key": (layers, kv, d),
        "value": (layers, kv, d),
        "output": (layers, d, d),
        "mlp_norm": (layers, d),
        "gate": (layers, f, d),
        "down": (layers, d, f),
        "up": (layers, f, d),
        "final_norm": (d,),
        "rope": (2, config.context_length, config.head_width // 2),
        "head": (config.vocab_size, d),
    }
    return {name: s for name, s in shapes.items() if name != "head" or not config.tied}


def file_order(header: Header) -> list[str]:
    """Names of the tensors in the order of the file."""
    order = VERSION_2_ORDER if header.group_size else LEGACY_ORDER
    return [name for name in order if name in file_shapes(header.config)]


def expected_size(header: Header) -> int:
    """Exact size in bytes of a file with this header.

    Raises:
      CheckpointError: the group size does not divide a tensor.
    """
    size, shapes = header.size, file_shapes(header.config)
    for name in file_order(header):
        count = _product(shapes[name])
        if header.group_size == 0 or name in NORMS:
            size += 4 * count
            continue
        matrix = _product(shapes[name][-2:])
        if matrix % header.group_size:
            raise CheckpointError(
                f"group size {header.group_size} does not divide the {matrix} weights of "
                f"{name!r}: the header is damaged"
            )
        size += count + 4 * (count // header.group_size)
    return size


def read_tensors(data: bytes, header: Header) -> dict[str, np.ndarray]:
    """Every tensor as float32 in the file's shapes; the RoPE tables are left out.

    Raises:
      CheckpointError: a weight is NaN or infinite; names the tensor.
    """
    shapes, offset, tensors = file_shapes(header.config), header.size, {}
    for name in file_order(header):
        shape = shapes[name]
        count = _product(shape)
        if header.group_size == 0 or name in NORMS:
            tensors[name] = np.frombuffer(data, "<f4", count, offset).reshape(shape)
            offset += 4 * count
        else:
            tensors[name] = _dequantise(data, offset, shape, header.group_size)
            offset += count + 4 * (count // header.group_size)
    tensors.pop("rope", None)
    for name, tensor in tensors.items():
        bad = tensor.size - np.count_nonzero(np.isfinite(tensor))
        if bad:
            raise CheckpointError(
                f"{bad} of the {tensor.size} weights of {name!r} are NaN or infinite: the "
                "checkpoint is damaged or its training diverged"
            )
    return tensors


def _dequantise(data: bytes, offset: int, shape: tuple[int, ...], group: int) -> np.ndarray:
    """Int8 times the float32 scale of its group; each matrix is followed by its scales."""
    matrix = _product(shape[-2:])
    block = matrix + 4 * (matrix // group)
    out = np.empty((_product(shape[:-2]), matrix // group, group), np.float32)
    for index in range(len(out)):
        start = offset + index * block
        weights = np.frombuffer(data, np.int8, matrix, start).reshape(-1, group)
        scales = np.frombuffer(data, "<f4", matrix // group, start + matrix)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller names what is not finite
            np.multiply(weights, scales[:, None], out=out[index])
    return out.reshape(shape)


def to_params(tensors: dict[str, np.ndarray], config: DecoderConfig) -> dict[str, Any]:
    """The decoder's parameter tree from tensors in the file's orientation."""
    layers, d, k = config.num_layers, config.width, config.head_width

    def project(name):  # [L, heads * k, d] -> [L, d, heads, k]
        return np.swapaxes(tensors[name], 1, 2).reshape(layers, d, -1, k)

    def flip(name):
        return np.swapaxes(tensors[name], 1, 2)

    params = {
        "embedding": tensors["embedding"],
        "final_norm": tensors["final_norm"],
        "layers": {
            "attention": {name: project(name) for name in ("query", "key", "value")}
            | {"output": flip("output").reshape(layers, -1, k, d)},
            "attention_norm": tensors["attention_norm"],
            "mlp": {name: flip(name) for name in ("gate", "up", "down")},
            "mlp_norm": tensors["mlp_norm"],
        },
    }
    return params if config.tied else params | {"head": tensors["head"].T}


def from_params(params: dict[str, Any], config: DecoderConfig) -> dict[str, np.ndarray]:
    """Inverse of `to_params`, with the RoPE tables old readers expect."""
    layers, d = config.num_layers, config.width
    blocks = params["layers"]
    rotary = config.rotary_of(local=False).tables(config.head_width, config.context_length)
    tensors = {name: blocks[name] for name in ("attention_norm", "mlp_norm")}
    for name in ("query", "key", "value"):
        tensors[name] = np.reshape(blocks["attention"][name], (layers, d, -1)).swapaxes(1, 2)
    tensors["output"] = np.reshape(blocks["attention"]["output"], (layers, -1, d)).swapaxes(1, 2)
    for name in ("gate", "up", "down"):
        tensors[name] = np.swapaxes(np.asarray(blocks["mlp"][name]), 1, 2)
    tensors |= {"embedding": params["embedding"], "final_norm": params["final_norm"]}
    tensors["rope"] = np.stack(rotary)
    if not config.tied:
        tensors["head"] = np.transpose(params["head"])
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}


def _product(shape: tuple[int, ...]) -> int:
    """Exact integer product: header fields of a foreign file overflow NumPy's."""
    total = 1
    for size in shape:
        total *= size
    return total
