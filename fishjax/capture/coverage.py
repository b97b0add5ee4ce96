"""The coverage report: how every parameter of a program is accounted for, and at what cost."""

import collections
import dataclasses
import html
import math
from typing import Any

import jax
import jax.numpy as jnp

from fishjax.capture.centring import is_centred
from fishjax.capture.costs import Cost, gram_cost, materialised_cost, prefers_gram
from fishjax.capture.explicit import on_auto_axes
from fishjax.capture.factored import Materialised, Outer, accumulator, merged, summed
from fishjax.capture.forms import Form
from fishjax.capture.plan import TapUse, Use
from fishjax.capture.trace import Trace, abstract_gradient
from fishjax.trees import Selection
from fishjax.types import Batch, LogProbFn, Params, WithAux

__all__ = ["Coverage", "ParameterCoverage", "uses"]

_COLUMNS = ("parameter", "shape", "uses", "form", "FLOPs", "memory", "why")


@dataclasses.dataclass(frozen=True)
class ParameterCoverage:
    """How one parameter is covered.

    Attributes:
      path: its path.
      shape: its shape.
      kinds: what it is used for, e.g. `("embedding", "dense")`; one entry per use in the program
        text, so a use inside a scan counts once.
      form: `gram`, `centred gram`, `materialised`, `accumulated`, `unused`, `not selected` or `not
        differentiable`.
      reason: why that form.
      flops: estimated floating-point operations of the squared-norm statistic.
      bytes: estimated memory of the statistic's buffers; layers of a scan reuse one buffer.
      fallback: whether a use had no rule of its own and is covered by its materialised
        cotangent (exact, at that cost).
    """

    path: str
    shape: tuple[int, ...]
    kinds: tuple[str, ...]
    form: str
    reason: str
    flops: float
    bytes: float
    fallback: bool


@dataclasses.dataclass(frozen=True)
class Coverage:
    """One row for every parameter; printable, and a table in notebooks."""

    parameters: tuple[ParameterCoverage, ...]
    num_examples: int

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Paths of parameters with a use that has no rule of its own."""
        return tuple(p.path for p in self.parameters if p.fallback)

    def __getitem__(self, path: str) -> ParameterCoverage:
        for parameter in self.parameters:
            if parameter.path == path:
                return parameter
        known = ", ".join(p.path for p in self.parameters)
        raise KeyError(f"no parameter {path!r}: the parameters are {known}")

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                p.path,
                "x".join(map(str, p.shape)) or "scalar",
                ", ".join(_counted(p.kinds)) or "-",
                p.form,
                _engineering(p.flops),
                _engineering(p.bytes) + "B",
                p.reason,
            )
            for p in self.parameters
        ]

    def __str__(self) -> str:
        rows = [_COLUMNS, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([*lines, self._summary()])

    def _summary(self) -> str:
        covered = f"{len(self.parameters)} parameters, {self.num_examples} examples, exact"
        return f"{covered}; fallbacks: {', '.join(self.fallbacks) or 'none'}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{c}</th>" for c in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
            for row in self._cells()
        )
        caption = f"<caption>{html.escape(self._summary())}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def uses(
    fn: LogProbFn | WithAux,
    params: Params,
    batch: Batch,
    *,
    parameters: Selection = None,
    has_aux: bool = False,
) -> Coverage:
    """Reports where each parameter enters `fn`, and how its gradients are computed.

    Traces `fn` abstractly. Given concrete arrays, `fn` is also run, to check that it does not mix
    examples (`capture.verify`). Costs are those of `gradients.squared_norms`.

    Args:
      fn: `(params, batch) -> [N]`, never mixing examples.
      params: pytree of arrays or of `jax.ShapeDtypeStruct`.
      batch: likewise, example axis first.
      parameters: which parameters, as in `fishjax.trees.select_paths`.
      has_aux: whether `fn` returns `(values [N], aux)`.

    Returns:
      The report; `print` it.

    Raises:
      ValueError: `fn` does not return one number per example.
      MixedExamplesError: `fn` mixes examples.
    """

    def run(fn: Any, _: Any, params: Params, batch: Batch) -> Coverage:
        program = Trace(fn, params, batch, parameters=parameters, has_aux=has_aux)
        rows = tuple(_parameter(program, leaf) for leaf in range(len(program.paths)))
        return Coverage(rows, program.num_examples)

    return on_auto_axes(run, fn, None)(params, batch)


def _parameter(program: Trace, leaf: int) -> ParameterCoverage:
    value, form = program.leaves[leaf], program.forms[leaf]
    shape, dtype = tuple(jnp.shape(value)), jnp.result_type(value)
    if leaf not in program.reported:
        name = "not differentiable" if program.selected[leaf] else "not selected"
        return ParameterCoverage(
            program.paths[leaf], shape, (), name, f"dtype {dtype}", 0.0, 0.0, False
        )
    name, reason, cost = _statistic_form(program, form, shape)
    item = jnp.dtype(accumulator(dtype)).itemsize
    return ParameterCoverage(
        program.paths[leaf],
        shape,
        tuple(u.label for u in form.uses),
        name,
        reason,
        cost.flops * math.prod(shape[: form.layers]),
        cost.elements * item,
        any(isinstance(u, TapUse) and u.fallback for u in form.uses),
    )


def _statistic_form(program: Trace, form: Form, shape: tuple[int, ...]) -> tuple[str, str, Cost]:
    n = program.num_examples
    if form.kind == "unused":
        return "unused", form.reason, Cost(0.0, 0.0)
    if form.kind == "accumulate":
        elements = float(n * math.prod(shape))
        per_layer = elements / math.prod(shape[: form.layers])
        return "accumulated", form.reason, Cost(2.0 * per_layer, elements)
    joint = form.shares_factors
    parts: Any = tuple(abstract_gradient(u, n, joint) for u in form.uses)
    if joint:
        parts = tuple(_all_rows(p, u) for p, u in zip(parts, form.uses, strict=True))
    gradient = jax.eval_shape(lambda *parts: merged(summed(parts, form.disjoint)), *parts)
    dense = materialised_cost(gradient, gradient, n)
    if isinstance(gradient, Materialised):
        return "materialised", "no larger than the parameter", dense
    gram = gram_cost(gradient, gradient, n)
    figures = (
        f"Gram {_engineering(gram.flops)} FLOPs, {_engineering(gram.elements)} elements; "
        f"materialised {_engineering(dense.flops)}, {_engineering(dense.elements)}"
    )
    why = figures if len(parts) == 1 else f"{form.reason}; {figures}"
    if not prefers_gram(gradient, gradient, n):
        return "materialised", why, dense
    centred = any(isinstance(p, Outer) and is_centred(p.dtype, p.right.shape[-2]) for p in parts)
    return "centred gram" if centred else "gram", why, gram


def _all_rows(part: Any, use: Use) -> Any:
    """The container after the steps of scans over a shared weight joined its rows."""
    steps = math.prod(length for sort, length in use.scopes if sort == "steps")

    def widen(x: Any, axis: int) -> Any:
        sizes = [s * steps if a == axis else s for a, s in enumerate(x.shape)]
        return jax.ShapeDtypeStruct(tuple(sizes), x.dtype)

    return jax.tree.map(lambda x: widen(x, 2 if x.ndim == 4 else 1), part)


def _counted(kinds: tuple[str, ...]) -> list[str]:
    counts = collections.Counter(kinds)
    return [kind if n == 1 else f"{n} x {kind}" for kind, n in counts.items()]


def _engineering(value: float) -> str:
    """Three significant digits with a decimal prefix."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{prefix}"
    return f"{value:.3g}"
