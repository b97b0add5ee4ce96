"""Tensors of a directory of safetensors files, one at a time."""

import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .errors import CheckpointError

__all__ = ["SafetensorFiles", "write_tensors"]

_FLOATING = ("F64", "F32", "F16", "BF16")
_ROWS = 4096  # of a block when matrices are compared


def write_tensors(file: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file that Hugging Face's libraries read.

    Raises:
      OSError: the disk failed. The library has an exception of its own for that.
    """
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise OSError(f"{file}: {error}") from None
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from None


class SafetensorFiles:
    """Tensors by name; a tensor is read from disk when it is asked for.

    A file is mapped only while one of its tensors is read: mapped pages would count as memory.

    Args:
      directory: with the file `whole`, or with an index of its shards.
      whole: the name of the file.

    Raises:
      CheckpointError: no such files, a shard that is missing, damaged or truncated, or an index
        that names files elsewhere.
    """

    def __init__(self, directory: pathlib.Path, whole: str = "model.safetensors"):
        self.files = _files(directory, whole)
        self._file: dict[str, pathlib.Path] = {}
        for file in self.files:
            with _opened(file) as handle:
                for name in handle.keys():  # noqa: SIM118 (a handle, not a dict)
                    if name in self._file:
                        raise CheckpointError(f"{file}: tensor {name!r} is also in another shard")
                    self._file[name] = file

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __contains__(self, name: object) -> bool:
        return name in self._file

    def read(self, name: str) -> np.ndarray:
        """One tensor.

        Raises:
          CheckpointError: it cannot be read, is not floating point, or has NaN or infinity.
        """
        try:
            with _opened(self._file[name]) as handle:
                _checked(handle, name)
                tensor = handle.get_tensor(name)
        except (SafetensorError, TypeError, OSError) as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}") from None
        if not np.isfinite(tensor).all():
            bad = int(np.size(tensor) - np.count_nonzero(np.isfinite(tensor)))
            raise CheckpointError(f"{bad} values of tensor {name!r} are NaN or infinite")
        return tensor

    def equal(self, first: str, second: str) -> bool:
        """Whether two matrices are the same; a block of rows of each is in memory at a time."""
        try:
            with _opened(self._file[first]) as one, _opened(self._file[second]) as two:
                pair = _checked(one, first), _checked(two, second)
                shape, other = (tuple(part.get_shape()) for part in pair)
                if shape != other or not shape:
                    return False
                starts = range(0, shape[0], _ROWS)
                blocks = [slice(start, min(start + _ROWS, shape[0])) for start in starts]
                return all(np.array_equal(*(part[block] for part in pair)) for block in blocks)
        except (SafetensorError, TypeError, OSError) as error:
            raise CheckpointError(f"{first!r} or {second!r} cannot be read: {error}") from None


def _checked(handle: Any, name: str) -> Any:
    """The tensor as a slice, which reads nothing; CheckpointError where NumPy cannot hold it."""
    part = handle.get_slice(name)
    if part.get_dtype() not in _FLOATING:
        raise CheckpointError(
            f"tensor {name!r} has dtype {part.get_dtype()}: expected {', '.join(_FLOATING)}; "
            "quantised checkpoints are not supported"
        )
    return part


def _opened(file: pathlib.Path) -> Any:
    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}): truncated or not safetensors; copy it again"
        ) from None


def _files(directory: pathlib.Path, whole: str) -> list[pathlib.Path]:
    index = directory / f"{whole}.index.json"
    if not index.exists():
        single = directory / whole
        if not single.exists():
            raise CheckpointError(
                f"{directory} has neither {whole} nor {index.name}: pickled checkpoints "
                "(*.bin) are never read; convert them to safetensors"
            )
        return [single]
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: no weight_map ({error}): copy it again") from None
    files = []
    for name in sorted(names, key=str):
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r}: expected a plain file name")
        if not (directory / name).exists():
            raise CheckpointError(f"{directory} lacks the shard {name}: copy it too")
        files.append(directory / name)
    return files
