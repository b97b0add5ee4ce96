"""Which equations keep a parameter's gradient factored: dense products and embeddings."""

import math
from collections.abc import Callable
from typing import Any

from fishjax.capture.plan import DATA, DenseUse, EmbeddingUse, Static, Use

__all__ = ["elementwise_label", "product_use"]

_LABELS = {"mul": "scale", "div": "scale", "add": "shift", "sub": "shift", "add_any": "shift"}


def elementwise_label(eqn: Any) -> tuple[str, bool]:
    """The coverage label of a tapped use, and whether it counts as a fallback."""
    name = eqn.primitive.name
    label = _LABELS.get(name)
    return (label, False) if label else (f"fallback: {name}", True)


def product_use(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    """The factored use an equation is, as a function of the use's index; None otherwise."""
    rule = _RULES.get(eqn.primitive.name)
    return None if rule is None else rule(eqn, ins)


def _followed(kind: Any) -> bool:
    return isinstance(kind, Static) and kind.view is not None and kind.view.isometric


def _sorted_by_root(view: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    return axes if view.axes is None else tuple(sorted(axes, key=lambda a: view.axes[a]))


def _dot_general(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    operand = 0 if isinstance(ins[0], Static) else 1
    if not _followed(ins[operand]) or ins[1 - operand] != DATA:
        return None
    kind = ins[operand]
    contract, batch = eqn.params["dimension_numbers"]
    shape, other = eqn.invars[operand].aval.shape, eqn.invars[1 - operand].aval.shape
    blocks, contracting = tuple(batch[operand]), _sorted_by_root(kind.view, contract[operand])
    taken = {*blocks, *contracting}
    free = _sorted_by_root(kind.view, tuple(a for a in range(len(shape)) if a not in taken))
    data_taken = {*contract[1 - operand], *batch[1 - operand]}
    rows = math.prod(s for a, s in enumerate(other) if a not in data_taken)

    def sizes(axes: tuple[int, ...]) -> int:
        return math.prod(shape[a] for a in axes)

    return lambda index: DenseUse(
        index,
        kind.leaves,
        kind.view,
        "dense",
        kind.view.scopes,
        kind.layers,
        operand,
        blocks,
        contracting,
        free,
        tuple(shape),
        sizes(blocks),
        rows,
        sizes(contracting),
        sizes(free),
        eqn.invars[1 - operand].aval.dtype,
        eqn.outvars[0].aval.dtype,
    )


def _gather(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    if not _followed(ins[0]) or ins[1] != DATA:
        return None
    kind, numbers = ins[0], eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    rows_only = (
        tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(eqn.params["slice_sizes"]) == (1, *shape[1:])
    )
    if not rows_only or shape[0] >= 2**24:
        return None
    return lambda index: EmbeddingUse(
        index,
        kind.leaves,
        kind.view,
        "embedding",
        kind.view.scopes,
        kind.layers,
        math.prod(eqn.invars[1].aval.shape[:-1]),
        math.prod(shape[1:]),
        shape[0],
        tuple(shape),
        "CLIP" in str(eqn.params["mode"]),
        eqn.outvars[0].aval.dtype,
    )


_RULES = {"dot_general": _dot_general, "gather": _gather}
