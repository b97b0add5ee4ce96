"""States of a long computation: the newest whole one is kept, older ones are removed."""

import pathlib
from typing import Any

from fishjax.io.checkpoints import load_tree, save_tree
from fishjax.io.files import remove

__all__ = ["newest_state", "remove_older", "save_state"]


def save_state(states: pathlib.Path, name: str, tree: Any) -> None:
    """Stores a state, then removes older ones.

    Args:
      states: directory of all of them; created where absent.
      name: of this one: digits and dashes that sort after those of older states.
      tree: see `save_tree`.

    Raises:
      OutputError: writing failed; the state before is intact.
    """
    save_tree(states / name, tree)
    remove_older(states)


def newest_state(states: pathlib.Path) -> tuple[str, Any] | None:
    """Name and tree of the newest state, None where there is none yet; nothing is changed.

    Raises:
      RowsError: the state is damaged.
    """
    names = _names(states)
    return (names[-1], load_tree(states / names[-1])) if names else None


def remove_older(states: pathlib.Path) -> None:
    """Removes all states but the newest: a kill can leave some, and parts of them.

    Raises:
      OutputError: one cannot be removed.
    """
    for name in _names(states)[:-1]:
        remove(states / name)


def _names(states: pathlib.Path) -> list[str]:
    found = states.glob("[0-9]*") if states.is_dir() else ()
    return sorted(path.name for path in found)
