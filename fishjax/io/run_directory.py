"""A directory that belongs to one run: its manifest, its lock, its files.

`run.json` is written before anything else and names every setting that a row depends on.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from fishjax.io.canonical import dumps
from fishjax.io.errors import OutputError, RowsError, RunDirectoryError
from fishjax.io.files import cannot_write, make_directory, remove_leftovers, write_atomic

__all__ = [
    "ADAPTERS_NAME",
    "CONFIG_NAME",
    "DOCUMENTS_NAME",
    "LOSSES_NAME",
    "MANIFEST_NAME",
    "METRICS_NAME",
    "MODEL_NAME",
    "OPERATOR_NAME",
    "PEFT_NAME",
    "PLOTS_NAME",
    "ROWS_NAME",
    "SCHEMA_VERSION",
    "STATES_NAME",
    "locked",
    "open_run",
    "read_manifest",
]

SCHEMA_VERSION = 1
CONFIG_NAME = "config.toml"
MANIFEST_NAME, ROWS_NAME, METRICS_NAME, PLOTS_NAME = (
    "run.json",
    "rows.jsonl",
    "metrics.json",
    "plots",
)
STATES_NAME, OPERATOR_NAME = "states", "operator"
DOCUMENTS_NAME = "documents.jsonl"
LOSSES_NAME, ADAPTERS_NAME, PEFT_NAME, MODEL_NAME = "losses.jsonl", "adapters", "peft", "model"
_LOCK_NAME = ".lock"
_OWN_NAMES = frozenset(
    {
        *(MANIFEST_NAME, ROWS_NAME, METRICS_NAME, PLOTS_NAME, STATES_NAME, OPERATOR_NAME),
        *(LOSSES_NAME, ADAPTERS_NAME, PEFT_NAME, MODEL_NAME, DOCUMENTS_NAME, CONFIG_NAME),
    }
)


@contextlib.contextmanager
def open_run(directory: pathlib.Path, manifest: Mapping[str, Any]) -> Iterator[None]:
    """Holds the directory for this run: created or recognised as the same run, and locked.

    What a kill left half-written under a temporary name is removed.

    Args:
      directory: created with its parents where absent.
      manifest: `settings` is a flat mapping that must equal that of a run already there;
        everything else is information, kept as the first start wrote it.

    Raises:
      RunDirectoryError: another run (names the settings that differ), foreign files, not a
        directory, or another process is writing there.
      OutputError: the directory or the manifest cannot be written.
    """
    if directory.exists() and not directory.is_dir():
        raise RunDirectoryError(f"{directory} is a file: give a directory with --out")
    _refuse_foreign_files(directory)
    make_directory(directory)
    with locked(directory):
        # Looked at again under the lock: another process may have started meanwhile.
        _refuse_foreign_files(directory)
        for folder in (directory, directory / STATES_NAME, directory / PLOTS_NAME):
            remove_leftovers(folder)
        path = directory / MANIFEST_NAME
        if path.exists():
            _refuse_other_run(directory, read_manifest(directory), manifest)
        else:
            text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
            write_atomic(path, text.encode())
        yield


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Holds the directory's lock. The kernel frees it with the process, however that ends.

    Raises:
      RunDirectoryError: another process holds it.
      OutputError: the lock file cannot be opened.
    """
    path = directory / _LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirectoryError(
                f"another fishjax process is writing into {directory}: wait for it or choose "
                "another directory"
            ) from None
        except OSError as error:
            raise cannot_write(path, error) from None
        yield
    finally:
        os.close(descriptor)


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """The manifest of the run in a directory.

    Raises:
      RowsError: there is none, or it cannot be read.
    """
    path = directory / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RowsError(f"{directory} holds no fishjax run: there is no {MANIFEST_NAME}") from None
    except OSError as error:
        raise RowsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RowsError(f"{path} is damaged ({error}): start again in a new directory") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
        raise RowsError(f"{path} is not a run manifest: it has no settings")
    version = manifest["settings"].get("schema_version")
    if version != SCHEMA_VERSION:
        raise RowsError(
            f"{path} has schema version {version!r}, this fishjax reads {SCHEMA_VERSION}: use "
            "the fishjax that wrote it or start again in a new directory"
        )
    return manifest


def _refuse_foreign_files(directory: pathlib.Path) -> None:
    try:
        names = sorted(p.name for p in directory.iterdir()) if directory.exists() else []
    except OSError as error:
        raise OutputError(f"cannot use {directory}: {error.strerror}") from None
    visible = [name for name in names if not name.startswith(".")]
    foreign = [name for name in visible if name not in _OWN_NAMES]
    if visible and MANIFEST_NAME not in visible:
        foreign = visible
    if foreign:
        raise RunDirectoryError(
            f"{directory} holds files that are not of this run ({', '.join(foreign[:5])}): "
            "choose an empty or new directory"
        )


def _refuse_other_run(
    directory: pathlib.Path, there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    old, new = there["settings"], here["settings"]
    names = [name for name in (*new, *old) if dumps(old.get(name)) != dumps(new.get(name))]
    if names:
        details = ", ".join(
            f"{name} is {old.get(name)!r} there and {new.get(name)!r} here"
            for name in dict.fromkeys(names)
        )
        raise RunDirectoryError(
            f"{directory} holds another run: {details}; choose another directory or repeat "
            "that run's settings"
        )
