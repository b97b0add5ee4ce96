"""Which part of an operator belongs to which parameter, by path."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fishjax.operators.arrays import dtype_of, is_floating
from fishjax.trees import flatten_with_paths

__all__ = [
    "by_path",
    "check_shape",
    "floating_leaves",
    "matched",
    "metric_paths",
    "naming",
    "one_leaf",
]

_Part = TypeVar("_Part")


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the parameter's path before the message of a ValueError raised inside."""
    try:
        yield
    except ValueError as error:
        if not path:
            raise
        raise ValueError(f"parameter {path!r}: {error}") from error


def by_path(tree: Any) -> dict[str, Any]:
    """Path to leaf, in the tree's order.

    Raises:
      ValueError: two leaves have the same path string.
    """
    paths, leaves, _ = flatten_with_paths(tree)
    found = dict(zip(paths, leaves, strict=True))
    if len(found) < len(paths):
        twice = next(p for p in paths if paths.count(p) > 1)
        raise ValueError(f"two leaves have the path {twice!r}: expected one; rename a key")
    return found


def floating_leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    """(path to leaf, treedef) of a tree that an operator multiplies.

    Raises:
      ValueError: a leaf is not real floating point; names its path.
    """
    found = by_path(tree)
    for path, leaf in found.items():
        with naming(path):
            if not is_floating(leaf):
                raise ValueError(
                    f"the leaf has dtype {dtype_of(leaf)}: expected floating point; an "
                    "operator acts on gradients, so leave integer leaves out of the tree (None)"
                )
    return found, flatten_with_paths(tree)[2]


def one_leaf(holder: str, tree: Any) -> Any:
    """The tree, which must be one floating-point array.

    Raises:
      ValueError: it is a container, or not floating point.
    """
    found, _ = floating_leaves(tree)
    if set(found) != {""}:
        raise ValueError(
            f"{holder} acts on one array, and a tree with {_some(found)} came: expected the "
            "array itself; use an operator with one entry per path for a tree"
        )
    return tree


def metric_paths(params: Any) -> dict[str, Any | None]:
    """Path to leaf, None for a leaf that is not floating point and so has no gradient."""
    return {p: leaf if is_floating(leaf) else None for p, leaf in by_path(params).items()}


def _some(paths: Iterable[str]) -> str:
    paths = sorted(paths)
    return repr(paths) if len(paths) <= 8 else f"{paths[:8]!r} and {len(paths) - 8} more"


def matched(
    holder: str, parts: Mapping[str, _Part], paths: Iterable[str], *, all_used: bool = True
) -> dict[str, _Part]:
    """The operator's part for every path, in the order of `paths`.

    Args:
      holder: the operator's name, for messages.
      parts: path to part, as the operator holds them.
      paths: paths of the parameters.
      all_used: whether a part without a parameter is an error.

    Raises:
      ValueError: a parameter has no part, or a part no parameter; names its path.
    """
    wanted = list(paths)
    for path in wanted:
        if path not in parts:
            raise ValueError(
                f"{holder} has nothing for parameter {path!r}: it holds {_some(parts)}; expected "
                "one entry for every floating-point leaf; add it, or take the leaf out of the tree"
            )
    extra = parts.keys() - set(wanted)
    if all_used and extra:
        raise ValueError(
            f"{holder} has an entry for {min(extra)!r}, which is not in the tree: the tree has "
            f"{_some(wanted)}; expected one parameter for every entry; remove the entry, or "
            "pass the whole tree"
        )
    return {path: parts[path] for path in wanted}


def check_shape(holder: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises ValueError unless the operator's part has the leaf's shape."""
    if shape != expected:
        raise ValueError(
            f"{holder} has shape {shape}: expected {expected}, the shape of the leaf; "
            "build the operator from the same parameters"
        )
