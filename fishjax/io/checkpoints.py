"""Trees of arrays in directories: Orbax for the arrays, JSON for the structure, one rename."""

import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from fishjax.io.checksums import check_arrays, checked_structure, structure_bytes
from fishjax.io.errors import RowsError
from fishjax.io.files import (
    cannot_write,
    make_directory,
    replace_directory,
    temporary_name,
)
from fishjax.io.orbax_apart import orbax_apart
from fishjax.io.structures import decode, encode

__all__ = ["load_tree", "save_tree"]

_ARRAYS, _STRUCTURE = "arrays", "structure.json"
_ATTEMPTS, _SECONDS = 40, 0.05  # what is left after that goes when the run starts again


def save_tree(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes an operator, an estimator's state or any container of arrays; replaces what is there.

    The directory appears whole or not at all. Arrays keep their dtypes; sharded ones are written
    by the processes that hold them.

    Args:
      path: of the directory.
      tree: dicts, tuples, lists, arrays, numbers, strings and fishjax's own types.

    Raises:
      TypeError: the tree holds something else.
      OutputError: writing failed; what was there before is intact.
    """
    target = pathlib.Path(path).absolute()
    structure, arrays = encode(tree)
    make_directory(target.parent)
    temporary = temporary_name(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        with orbax_apart() as run:
            if arrays:
                run(_store, temporary / _ARRAYS, arrays)
        (temporary / _STRUCTURE).write_bytes(structure_bytes(structure, arrays))
        replace_directory(temporary, target)
    except (OSError, ValueError, RuntimeError) as error:
        raise cannot_write(target, _disk_error(error)) from None
    finally:
        _remove_unfinished(temporary)


def load_tree(
    path: str | os.PathLike[str],
    sharding: Callable[[tuple[int, ...]], jax.sharding.Sharding] | None = None,
) -> Any:
    """Reads what `save_tree` wrote.

    Args:
      path: of the directory.
      sharding: shape to sharding, to place arrays as they are read; None: on one device.

    Raises:
      RowsError: there is no such directory, or it is damaged: every array is compared with the
        checksum that was stored with it.
    """
    source = pathlib.Path(path).absolute()
    if not (source / _STRUCTURE).exists():
        raise RowsError(f"{path} holds no stored arrays of fishjax: expected {_STRUCTURE}")
    try:
        structure, checksums = checked_structure((source / _STRUCTURE).read_bytes())
        with orbax_apart() as run:
            arrays = run(_restored, source / _ARRAYS, sharding) if checksums else {}
        check_arrays(arrays, checksums)
        return decode(structure, arrays)
    except (MemoryError, jax.errors.JaxRuntimeError):  # no room for them
        raise
    except Exception as error:  # Orbax and TensorStore raise whatever damage leads them to
        reason = " ".join(str(error).split())[:200]
        raise RowsError(
            f"{path} cannot be read ({reason}): it is damaged or incomplete; copy it again, or "
            "remove it and run the command that wrote it again"
        ) from None


def _remove_unfinished(temporary: pathlib.Path) -> None:
    """After a failure TensorStore may still be writing into it for a moment."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(temporary, ignore_errors=True)
        if not temporary.exists():
            return
        time.sleep(_SECONDS)


def _store(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, arrays)


def _restored(path: pathlib.Path, sharding: Any) -> dict[str, Any]:
    place = sharding or (lambda shape: jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        if metadata is None:
            raise ValueError(f"no metadata in {path.name}")
        arguments = {
            name: ocp.ArrayRestoreArgs(sharding=place(tuple(entry.shape)))
            for name, entry in metadata.tree.items()
        }
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))


def _disk_error(error: Exception) -> OSError:
    """An error of the system as such: TensorStore raises them as a ValueError with a long text."""
    if isinstance(error, OSError):
        return error
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return OSError(" ".join(str(error).split())[:200])
