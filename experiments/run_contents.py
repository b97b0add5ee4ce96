"""What a run left in its directory, so that two runs can be compared to the last byte."""

import hashlib
import json
import os
import pathlib
import tomllib
from typing import Any

import jax
import numpy as np

from fishjax.io.checkpoints import load_tree

__all__ = ["contents", "differences", "file_content"]

_LOCK = ".lock"  # stays behind on purpose
_TREE = "structure.json"
# metrics.json names times and the machine; what it measures is compared
_VOLATILE = ("effort", "evaluated_with")
_OF_A_START = ("out", "quiet", "no-plots")


def contents(directory: pathlib.Path) -> dict[str, Any]:
    """Path below the directory to what is there, hidden leftovers included.

    Files count by their bytes, stored trees by their structure and the bits of their arrays (Orbax
    draws the names of its files), metrics without the times.
    """
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(directory):
        here = pathlib.Path(folder)
        name = here.relative_to(directory).as_posix()
        if _TREE in files:
            found[name] = _tree(here)
            folders.clear()
            continue
        if not folders and not files:
            found[f"{name}/"] = None
        for file in files:
            if file != _LOCK:
                found[(here / file).relative_to(directory).as_posix()] = file_content(here / file)
    return found


def differences(found: pathlib.Path, expected: pathlib.Path) -> list[str]:
    """Names that differ or are in one of the two only."""
    a, b = contents(found), contents(expected)
    return sorted(name for name in a.keys() | b.keys() if a.get(name, ...) != b.get(name, ...))


def file_content(path: pathlib.Path) -> Any:
    """The hash of a file, what the metrics measured, or the options that decide what is written."""
    if path.name == "metrics.json":
        return {k: v for k, v in json.loads(path.read_bytes()).items() if k not in _VOLATILE}
    if path.name == "config.toml":
        return {k: v for k, v in tomllib.loads(path.read_text()).items() if k not in _OF_A_START}
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tree(path: pathlib.Path) -> Any:
    leaves, structure = jax.tree.flatten(load_tree(path))
    arrays = [np.asarray(leaf) for leaf in leaves]
    bits = [hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() for x in arrays]
    return str(structure), [(x.shape, x.dtype.name, b) for x, b in zip(arrays, bits, strict=True)]
