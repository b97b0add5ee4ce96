"""Files and directories of a checkpoint that appear whole or not at all."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from .errors import CheckpointError

__all__ = ["new_directory", "new_file"]


@contextlib.contextmanager
def new_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory to fill, which becomes `directory` when the block ends without an error.

    Args:
      directory: does not exist yet, or is empty.

    Raises:
      CheckpointError: it is not empty.
      OSError: the disk failed; nothing is left.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} is not empty: choose a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # the ending by which a run finds what a kill left behind
    with tempfile.TemporaryDirectory(
        dir=directory.parent, prefix=f".{directory.name}-", suffix=".tmp"
    ) as name:
        partial = pathlib.Path(name) / "whole"
        partial.mkdir()
        yield partial
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
        _sync(directory.parent)


def new_file(file: pathlib.Path, data: bytes) -> None:
    """Writes a file, or replaces one, by a rename.

    Raises:
      OSError: the disk failed; what was there before is intact.
    """
    partial = file.with_name(f".{file.name}.tmp")
    try:
        partial.write_bytes(data)
        _sync(partial)
        partial.replace(file)
        _sync(file.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    """Waits for the disk: a name must not last longer than what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
