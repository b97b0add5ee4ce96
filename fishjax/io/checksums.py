"""CRC-32 of stored arrays and of what describes them: damage is found, not taken for numbers."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fishjax.io.errors import RowsError

__all__ = ["check_arrays", "checked_structure", "structure_bytes"]


def structure_bytes(structure: Any, arrays: Mapping[str, Any]) -> bytes:
    """The JSON file that describes arrays: their structure, their checksums, its own."""
    content = {"structure": structure, "arrays": {n: _crc(x) for n, x in arrays.items()}}
    return json.dumps({**content, "crc32": _text_crc(content)}).encode()


def checked_structure(data: bytes) -> tuple[Any, Mapping[str, int | None]]:
    """`(structure, checksums)` of such a file.

    Raises:
      ValueError: it is damaged.
    """
    content = json.loads(data)
    if not isinstance(content, dict) or content.keys() != {"structure", "arrays", "crc32"}:
        raise ValueError("not a structure with checksums, as this fishjax writes it")
    if content.pop("crc32") != _text_crc(content):
        raise ValueError("the structure differs from its checksum")
    return content["structure"], content["arrays"]


def check_arrays(arrays: Mapping[str, Any], checksums: Mapping[str, int | None]) -> None:
    """Compares arrays that were read with what was written.

    Raises:
      RowsError: an array differs, is missing or is one too many.
    """
    for name in arrays.keys() | checksums.keys():
        if name not in arrays or name not in checksums:
            raise RowsError(f"array {name} is {'missing' if name in checksums else 'unexpected'}")
        found = _crc(arrays[name])
        if checksums[name] is not None and found is not None and found != checksums[name]:
            raise RowsError(f"array {name} differs from its checksum")


def _crc(array: Any) -> int | None:
    """None where other processes hold a part."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return None
    flat = np.ascontiguousarray(np.asarray(array)).reshape(-1)
    return zlib.crc32(flat.view(np.uint8).data) if flat.size else 0


def _text_crc(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
