"""What the first, abstract pass over a program finds: where each parameter is used.

The analysis gives every value one of three kinds. *Constant*: depends on neither parameters
nor example. *Static*: depends on parameters, not on the example; a static value that is only
a layout change of one leaf carries a `View`. *Data*: depends on the example. A `Use` is a
place where a static value meets data. The plan records, equation by equation, what the second
pass has to do.
"""

import dataclasses
from typing import Any

__all__ = [
    "CONSTANT",
    "DATA",
    "Action",
    "DenseUse",
    "EmbeddingUse",
    "Plan",
    "Static",
    "TapUse",
    "Use",
    "View",
]

CONSTANT = "constant"
DATA = "data"


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A layout-only function of one parameter leaf.

    Attributes:
      leaf: index of the leaf.
      scopes: enclosing scans, outermost first: `("layers", L)` where the leaf itself is sliced,
        `("steps", L)` where it is constant over the scan.
      ops: layout equations from the innermost scope's root to this value.
      root_shape: shape of that root (the leaf, or its slice inside a scan).
      axes: for every axis the root's axis it is, or None where that is lost.
      scale: constant factor applied to the root.
      isometric: whether inner products of gradients survive (no broadcast).
    """

    leaf: int
    scopes: tuple[tuple[str, int], ...]
    ops: tuple[Any, ...]
    root_shape: tuple[int, ...]
    root_dtype: Any
    axes: tuple[int, ...] | None
    scale: float = 1.0
    isometric: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Static:
    """A value that depends on parameters only; `view` is None for a derived weight.

    `layers` counts the enclosing scans that slice the leading axes of the leaves behind it.
    """

    leaves: frozenset[int]
    view: View | None
    layers: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """One place where a static value meets data.

    Attributes:
      index: number of the use.
      leaves: the leaves behind the static value.
      view: its layout, None for a derived weight.
      label: what the coverage report calls it.
      scopes: enclosing scans as in `View`; for a derived weight all are "steps".
      layers: as in `Static`.
    """

    index: int
    leaves: frozenset[int]
    view: View | None
    label: str
    scopes: tuple[tuple[str, int], ...]
    layers: int


@dataclasses.dataclass(frozen=True, eq=False)
class DenseUse(Use):
    """A dense product. Axis groups are axes of the *operand*."""

    operand: int = 1
    blocks: tuple[int, ...] = ()
    contracting: tuple[int, ...] = ()
    free: tuple[int, ...] = ()
    operand_shape: tuple[int, ...] = ()
    num_blocks: int = 1
    rows: int = 1
    left_size: int = 1
    right_size: int = 1
    data_dtype: Any = None
    dtype: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingUse(Use):
    """A gather of whole rows."""

    rows: int = 1
    features: int = 1
    vocabulary: int = 1
    operand_shape: tuple[int, ...] = ()
    clip: bool = False
    dtype: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class TapUse(Use):
    """Any other use: the per-example cotangent of the static value itself is collected."""

    shape: tuple[int, ...] = ()
    dtype: Any = None
    fallback: bool = False


@dataclasses.dataclass(eq=False)
class Action:
    """What the second pass does with one equation."""

    kind: str  # "plain" | "static" | "use" | "call" | "remat" | "scan"
    use: Any = None
    taps: dict[int, TapUse] = dataclasses.field(default_factory=dict)
    plan: Any = None


@dataclasses.dataclass(eq=False)
class Plan:
    """Actions of one jaxpr, and taps on outputs that would otherwise stay static."""

    jaxpr: Any
    consts: list[Any]
    actions: list[Action]
    out_kinds: list[Any]
    out_taps: dict[int, TapUse] = dataclasses.field(default_factory=dict)
    use_indices: list[int] = dataclasses.field(default_factory=list)
