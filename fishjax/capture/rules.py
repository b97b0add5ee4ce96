"""Which equations keep a parameter's gradient factored: products, convolutions, embeddings."""

import math
from collections.abc import Callable
from typing import Any

from fishjax.capture.convolution import convolution_use
from fishjax.capture.dense import dense_use
from fishjax.capture.plan import DATA, EmbeddingUse, Static, Use, followed

__all__ = ["gated_operand", "product_use", "tap_label"]

_ELEMENTWISE = {"mul": "scale", "div": "scale", "add": "shift", "sub": "shift", "add_any": "shift"}
_PRODUCTS = {
    "dot_general": "dense",
    "conv_general_dilated": "convolution",
    "gather": "embedding",
    "dynamic_slice": "embedding",
}


def tap_label(eqn: Any, kind: Static) -> tuple[str, bool]:
    """The coverage label of a tapped use, and whether it counts as a fallback.

    A derived weight in a product is tapped by design: its cotangent is pulled back through the
    function that made it.
    """
    name = eqn.primitive.name
    label = _ELEMENTWISE.get(name)
    if label is None and not followed(kind):
        label = _PRODUCTS.get(name)
    return (label, False) if label else (f"fallback: {name}", True)


def gated_operand(eqn: Any, ins: list[Any], producers: dict[Any, Any]) -> int | None:
    """The case of `select(data, stop_gradient(w), w)` that is the parameter; None otherwise.

    So does `vmap` rewrite a branch on data: the value is w either way, and the branch that is
    not taken gets no gradient. The parameter stays followed, its cotangent is gated.
    """
    if eqn.primitive.name != "select_n" or ins[0] != DATA or len(eqn.invars) != 3:
        return None
    if eqn.invars[0].aval.shape:
        spread = producers.get(eqn.invars[0])
        if spread is None or spread.primitive.name != "broadcast_in_dim":
            return None
        if math.prod(spread.invars[0].aval.shape) != 1:
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
    """Whole rows, by indices that may be the same for all examples (a position table)."""
    if not followed(ins[0]) or isinstance(ins[1], Static):
        return None
    kind, numbers = ins[0], eqn.params["dimension_numbers"]
    shape, mapped = eqn.invars[0].aval.shape, tuple(numbers.start_index_map)
    clip = "CLIP" in str(eqn.params["mode"])
    rows_only = (
        tuple(eqn.params["slice_sizes"]) == (1, *shape[1:])
        and tuple(numbers.collapsed_slice_dims) in ((), (0,))
        # other columns can only be zero, where they are clipped
        and (mapped == (0,) or (clip and 0 in mapped))
        and not numbers.operand_batching_dims
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
        clip,
        mapped.index(0),
        eqn.outvars[0].aval.dtype,
    )


_RULES = {
    "dot_general": dense_use,
    "conv_general_dilated": convolution_use,
    "gather": _gather,
}
