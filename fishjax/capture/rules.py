"""Which equations keep a parameter's gradient factored: products, convolutions, embeddings."""

import math
from collections.abc import Callable
from typing import Any

from fishjax.capture.convolution import convolution_use
from fishjax.capture.dense import dense_use
from fishjax.capture.plan import DATA, EmbeddingUse, Static, Use, followed

__all__ = ["elementwise_label", "gated_operand", "product_use"]

_LABELS = {"mul": "scale", "div": "scale", "add": "shift", "sub": "shift", "add_any": "shift"}


def elementwise_label(eqn: Any) -> tuple[str, bool]:
    """The coverage label of a tapped use, and whether it counts as a fallback."""
    name = eqn.primitive.name
    label = _LABELS.get(name)
    return (label, False) if label else (f"fallback: {name}", True)


def gated_operand(eqn: Any, ins: list[Any], producers: dict[Any, Any]) -> int | None:
    """The case of `select(data, stop_gradient(w), w)` that is the parameter; None otherwise.

    So does `vmap` rewrite a branch on data: the value is w either way, and the branch that is
    not taken gets no gradient. The parameter stays followed, its cotangent is gated.
    """
    if eqn.primitive.name != "select_n" or ins[0] != DATA or len(eqn.invars) != 3:
        return None
    predicate = producers.get(eqn.invars[0]) if eqn.invars[0].aval.shape else None
    if eqn.invars[0].aval.shape:
        name = predicate.primitive.name if predicate is not None else ""
        if name != "broadcast_in_dim" or math.prod(predicate.invars[0].aval.shape) != 1:
            return None
    for case, other in ((1, 2), (2, 1)):
        stopped = producers.get(eqn.invars[other])
        if (
            isinstance(ins[case], Static)
            and stopped is not None
            and stopped.primitive.name == "stop_gradient"
            and stopped.invars[0] is eqn.invars[case]
        ):
            return case
    return None


def product_use(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    """The factored use an equation is, as a function of the use's index; None otherwise."""
    rule = _RULES.get(eqn.primitive.name)
    return None if rule is None else rule(eqn, ins)


def _gather(eqn: Any, ins: list[Any]) -> Callable[[int], Use] | None:
    if not followed(ins[0]) or ins[1] != DATA:
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


_RULES = {
    "dot_general": dense_use,
    "conv_general_dilated": convolution_use,
    "gather": _gather,
}
