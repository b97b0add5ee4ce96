"""Which of the exact forms a parameter's gradient takes, chosen once all its uses are known.

- *local*: one use; the statistic is finished where it happens.
- *joint*: several uses in one block of a scan over layers; the factors of each come together at
  the block's beginning, where one statistic is finished.
- *factors*: several factored uses (a tied embedding, a weight shared by steps of a scan, slices
  of a fused weight); the factors of each are collected and one statistic is finished at the end.
- *accumulate*: anything else; one per-example gradient of the parameter is summed up.
- *unused*: no use; the gradient is zero.
"""

import dataclasses
import itertools
import math
from typing import Any

from fishjax.capture import convolution, dense
from fishjax.capture.plan import (
    ConvolutionUse,
    DenseUse,
    EmbeddingUse,
    Plan,
    ProductUse,
    TapUse,
    Use,
)

__all__ = ["Axes", "Form", "canonical_axes", "choose_forms", "factor_axes", "product_axes"]

Axes = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """The form chosen for one leaf.

    Attributes:
      kind: `local`, `joint`, `factors`, `accumulate` or `unused`.
      reason: why, for the coverage report.
      uses: the leaf's uses.
      layers: how many leading axes of the leaf are layers of a scan.
      disjoint: whether no two uses meet the same entry of the leaf.
      home: of the joint form, the plan in which the uses come together.
    """

    kind: str
    reason: str
    uses: tuple[Use, ...]
    layers: int
    disjoint: bool = False
    home: Plan | None = None

    @property
    def shares_factors(self) -> bool:
        """Whether uses hand their factors on instead of finishing a statistic of their own."""
        return self.kind in ("joint", "factors")


def choose_forms(plan: Plan, uses: list[Use], shapes: list[tuple[int, ...]]) -> list[Form]:
    """One form for every leaf; `shapes` are the leaves' shapes."""
    return [
        _choose(plan, tuple(u for u in uses if leaf in u.leaves), shape)
        for leaf, shape in enumerate(shapes)
    ]


def _choose(plan: Plan, uses: tuple[Use, ...], shape: tuple[int, ...]) -> Form:
    layers = min((u.layers for u in uses), default=0)
    if not uses:
        return Form("unused", "never meets data: the gradient is zero", uses, 0)
    if any(u.view is None for u in uses):
        return Form("accumulate", "enters through a derived weight", uses, layers)
    steps = any(sort == "steps" for u in uses for sort, _ in u.scopes)
    if len(uses) == 1 and not steps:
        return Form("local", "one use", uses, layers)
    keys = {factor_axes(u) for u in uses}
    apart = _are_apart(uses)
    alike = None not in keys and len(keys) == 1
    taps = all(isinstance(u, TapUse) for u in uses)
    home = None if steps else _home(plan, uses)
    if home is not None and (alike or apart or taps):
        reason = "several uses in one block: one Gram over all of them"
        return Form("joint", reason, uses, layers, apart, home)
    if not (alike or apart) or len({_layer_scopes(u) for u in uses}) > 1:
        return Form("accumulate", "several uses without a common factored form", uses, layers)
    stored = sum(_factor_size(u) for u in uses)
    if stored > math.prod(shape[layers:]) and not any(isinstance(u, EmbeddingUse) for u in uses):
        return Form("accumulate", "its factors are larger than its gradient", uses, layers)
    if apart:
        return Form("factors", "uses of separate parts: one Gram for each", uses, layers, True)
    return Form("factors", "several uses: one Gram over all of them", uses, layers)


def _home(plan: Plan, uses: tuple[Use, ...]) -> Plan | None:
    """The innermost plan with all the uses, if it is the body of all the scans they are in."""
    indices, scans, within = {u.index for u in uses}, 0, plan
    while True:
        inner = [
            (action.kind == "scan", nested)
            for action in within.actions
            for nested in (action.plan, *action.branches)
            if nested is not None and indices <= set(nested.use_indices)
        ]
        if not inner:
            break
        ((is_scan, within),) = inner
        scans += is_scan
    return within if scans and all(len(u.scopes) == scans for u in uses) else None


def _are_apart(uses: tuple[Use, ...]) -> bool:
    """Whether all uses are factored ones of slices of the leaf that do not overlap."""
    if not all(isinstance(u, ProductUse | EmbeddingUse) for u in uses):
        return False
    regions = [u.view.region for u in uses if u.view is not None]
    if None in regions:
        return False
    return all(
        any(a1 <= b0 or b1 <= a0 for (a0, a1), (b0, b1) in zip(x, y, strict=True))  # type: ignore[arg-type]
        for x, y in itertools.combinations(regions, 2)
    )


def _layer_scopes(use: Use) -> tuple[int, ...]:
    return tuple(n for sort, n in use.scopes if sort == "layers")


def _factor_size(use: Any) -> int:
    steps = math.prod(n for sort, n in use.scopes if sort == "steps")
    if isinstance(use, EmbeddingUse):
        return steps * use.rows * (1 + use.features)
    return steps * use.num_blocks * use.rows * (use.left_size + use.right_size)


def product_axes(use: ProductUse) -> Axes | None:
    """(block, data, output) axes of the leaf, without those of length one; None where unknown."""
    if isinstance(use, DenseUse):
        return dense.leaf_axes(use)
    return convolution.leaf_axes(use) if isinstance(use, ConvolutionUse) else None


def canonical_axes(axes: Axes) -> Axes:
    """The same axes with the group that holds the leaf's first axis on the left.

    So an embedding's gather (rows left) and its transposed use as an output layer come out alike.
    """
    blocks, first, second = axes
    swapped = bool(second) and (not first or min(second) < min(first))
    return (blocks, second, first) if swapped else axes


def factor_axes(use: Use) -> Axes | None:
    """The canonical axes of a factored use; None where they are unknown."""
    if isinstance(use, EmbeddingUse):
        if use.view is None or use.view.axes is None:
            return None
        root = use.view.root_shape
        return (), (0,), tuple(a for a in range(1, len(root)) if root[a] != 1)
    axes = product_axes(use) if isinstance(use, ProductUse) else None
    return None if axes is None else canonical_axes(axes)
