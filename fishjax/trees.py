"""Names and slices of parameter pytrees."""

from typing import Any

import jax

__all__ = ["flatten_with_paths", "leading_size", "path_string", "take_example"]


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


def take_example(batch: Any) -> Any:
    """Adds an example axis of length one to every leaf: one example as a batch."""
    return jax.tree.map(lambda leaf: leaf[None], batch)
