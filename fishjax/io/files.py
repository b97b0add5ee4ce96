"""Writes that survive a crash at any moment: whole files by rename, appends with undo."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from fishjax.io.errors import OutputError

__all__ = [
    "append_durably",
    "cannot_write",
    "make_directory",
    "remove",
    "remove_leftovers",
    "replace_directory",
    "temporary_name",
    "truncate_durably",
    "write_atomic",
    "writing",
]

_ENDING, _OLD = ".tmp", ".old.tmp"


def cannot_write(path: pathlib.Path, error: OSError) -> OutputError:
    """The one message for every failed write."""
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(
        f"cannot write {path}: {reason}; rows already written are intact, make room or choose "
        "another directory and run the same command again"
    )


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns every error of the disk inside the block into the one message about `path`.

    Raises:
      OutputError: there was one.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def temporary_name(path: pathlib.Path) -> pathlib.Path:
    """Where a file or directory is written before it is renamed."""
    return path.with_name(f".{path.name}{_ENDING}")


def remove_leftovers(directory: pathlib.Path) -> None:
    """Removes what writes that a kill ended left under temporary names.

    A directory that was moved aside for another, which never came, gets its name back.

    Raises:
      OutputError: something cannot be removed.
    """
    for leftover in sorted(directory.glob(f".*{_ENDING}")):
        whole = leftover.with_name(leftover.name[1:].removesuffix(_OLD))
        if leftover.name.endswith(_OLD) and not whole.exists():
            with writing(whole):
                leftover.rename(whole)
        else:
            remove(leftover)


def remove(path: pathlib.Path) -> None:
    """Removes a file or a whole directory.

    Raises:
      OutputError: it cannot be removed.
    """
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def replace_directory(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a written directory its name, in place of the one that has it.

    What it holds is on the disk before: not every library waits for that. A directory cannot be
    replaced by one rename: a kill in between leaves both under hidden names, neither of them cut.

    Raises:
      OSError: it failed; the old directory is there, or the new.
    """
    for inside in (*temporary.rglob("*"), temporary):
        _sync(inside)
    old = path.with_name(f".{path.name}{_OLD}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def make_directory(path: pathlib.Path) -> None:
    """Creates the directory and its parents where absent.

    Raises:
      OutputError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Replaces a file as a whole: readers see the old or the new one, never a part.

    Raises:
      OutputError: writing failed; the old file is intact.
    """
    temporary = temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def append_durably(path: pathlib.Path, data: bytes) -> None:
    """Appends and waits for the disk; a failed append is undone.

    Raises:
      OutputError: writing failed; what the file held before is intact.
    """
    try:
        existed = path.exists()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                # If even this fails, the reader drops the partial tail.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not existed:
            _sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None


def truncate_durably(path: pathlib.Path, size: int) -> None:
    """Cuts a file to its first `size` bytes and waits for the disk.

    Raises:
      OutputError: it failed.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise cannot_write(path, error) from None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(path: pathlib.Path) -> None:
    """Waits for the disk; of a directory: makes a rename or a new name durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
