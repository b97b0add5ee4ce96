"""Names and slices of parameter pytrees."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax

__all__ = [
    "Selection",
    "flatten_with_paths",
    "leading_size",
    "path_string",
    "select_paths",
    "take_example",
]

Selection = str | Sequence[str] | Callable[[str], bool] | None
"""Which parameters: a glob pattern of paths, several, a predicate of a path, or None for all."""


def path_string(path: tuple[Any, ...]) -> str:
    """Joins the keys of a JAX key path with `/`, e.g. `layers/attention/query`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_with_paths(tree: Any) -> tuple[list[str], list[Any], Any]:
    """Flattens a pytree to (paths, leaves, treedef); paths are `/`-joined strings."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [path_string(p) for p, _ in with_paths], [leaf for _, leaf in with_paths], treedef


def leading_size(batch: Any) -> int:
    """The common length N of the first axis of every leaf.

    Raises:
      ValueError: there is no leaf, a leaf is a scalar, or two leaves disagree.
    """
    paths, leaves, _ = flatten_with_paths(batch)
    if not leaves:
        raise ValueError("the batch has no arrays: expected leaves with the example axis first")
    sizes = {}
    for path, leaf in zip(paths, leaves, strict=True):
        shape = jax.numpy.shape(leaf)
        if not shape:
            raise ValueError(
                f"batch leaf {path!r} is a scalar: every leaf needs the example axis first; "
                "close over values shared by all examples instead of passing them in the batch"
            )
        sizes[path] = shape[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"batch leaves disagree on the number of examples: {sizes}")
    return next(iter(sizes.values()))


def select_paths(paths: Sequence[str], selection: Selection) -> list[bool]:
    """Which of the paths a selection takes.

    A pattern is a shell glob (`*`, `?`, `[...]`; `*` also crosses `/`) that matches a whole path or
    its end after a `/`: `attention/*` takes `layers/attention/query`.

    Raises:
      ValueError: a pattern, or the predicate, takes no path.
    """
    if selection is None:
        return [True] * len(paths)
    if callable(selection):
        taken = [bool(selection(path)) for path in paths]
        if not any(taken):
            raise ValueError(f"the selection takes none of the parameters: {_listed(paths)}")
        return taken
    patterns = [selection] if isinstance(selection, str) else list(selection)
    if not patterns:
        raise ValueError("the selection is empty: give at least one pattern, or None for all")
    rows = [[_matches(path, pattern) for path in paths] for pattern in patterns]
    for pattern, row in zip(patterns, rows, strict=True):
        if not any(row):
            raise ValueError(f"no parameter matches {pattern!r}: they are {_listed(paths)}")
    return [any(column) for column in zip(*rows, strict=True)]


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*/{pattern}")


def _listed(paths: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(paths[:most])
    return shown if len(paths) <= most else f"{shown} and {len(paths) - most} more"


def take_example(batch: Any) -> Any:
    """Adds an example axis of length one to every leaf: one example as a batch."""
    return jax.tree.map(lambda leaf: leaf[None], batch)
