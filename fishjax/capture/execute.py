"""The second pass: runs the program as planned, with a site at every use.

Values stay plain arrays. A static value whose leaves accumulate travels with a *shadow*: a
zero per-example perturbation that undergoes the derivative of whatever happens to the value,
so that its cotangent is the exact per-example gradient of the leaf.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fishjax.capture.adapter import bind, is_literal, remat_arguments, scan_parts
from fishjax.capture.factored import accumulator
from fishjax.capture.forms import Form
from fishjax.capture.plan import Plan, ProductUse, TapUse, Use
from fishjax.capture.sites import Ride, Sites, shadow_site

__all__ = ["Runner", "Value"]


class Value(NamedTuple):
    """A value and, for static values, what its cotangent meets on the way to the leaf.

    Attributes:
      primal: the array.
      shadow: the perturbation of an accumulating leaf.
      gate: whether this example takes the branch that the value is in; None: no branch.
    """

    primal: Any
    shadow: Array | None = None
    gate: Array | None = None


Rides = dict[int, Ride]  # what travels to every use, by its index


@dataclasses.dataclass(frozen=True, eq=False)
class Runner:
    """Executes a plan.

    Attributes:
      forms: one for every leaf.
      sites: builds the operation at a use.
      tickets: shapes of the containers of the uses in joint form, by index.
    """

    forms: list[Form]
    sites: Sites
    tickets: dict[int, Any]

    def shares_factors(self, use: Use) -> bool:
        """Whether the use hands its factors on; a use of several leaves never does."""
        return all(self.forms[leaf].shares_factors for leaf in use.leaves)

    def joined(self, plan: Plan, rides: Rides) -> Rides:
        """The rides, with one for every use that comes together with others in this plan."""
        for form in self.forms:
            first = form.uses[0].index if form.uses else -1
            if form.home is plan and first in rides:
                tickets = {u.index: self.tickets[u.index] for u in form.uses}
                own = self.sites.joint(tickets, form.disjoint)(rides[first])
                rides = rides | {index: Ride(ticket, None) for index, ticket in own.items()}
        return rides

    def run(self, plan: Plan, values: list[Value], rides: Rides) -> list[Value]:
        """Evaluates the plan's jaxpr."""
        jaxpr, rides = plan.jaxpr, self.joined(plan, rides)
        env: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=True))
        env.update((v, Value(c)) for v, c in zip(jaxpr.constvars, plan.consts, strict=True))

        def read(atom: Any) -> Value:
            return Value(atom.val) if is_literal(atom) else env[atom]

        for eqn, action in zip(jaxpr.eqns, plan.actions, strict=True):
            ins = [read(a) for a in eqn.invars]
            for i, use in action.taps.items():
                ins[i] = self.tapped(use, ins[i], rides)
            outs = getattr(self, f"do_{action.kind}")(eqn, action, ins, rides)
            env.update(zip(eqn.outvars, outs, strict=True))
        outs = [read(a) for a in jaxpr.outvars]
        for i, use in plan.out_taps.items():
            outs[i] = self.tapped(use, outs[i], rides)
        return outs

    def tapped(self, use: TapUse, value: Value, rides: Rides) -> Value:
        """Turns a static value into data."""
        if value.shadow is not None:
            return Value(shadow_site(value.primal, value.shadow))
        return Value(
            self.sites.tap(use, self.shares_factors(use))(
                value.primal, rides[use.index], value.gate
            )
        )

    def do_plain(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Data or constants only."""
        del action, rides
        return [Value(out) for out in bind(eqn, *(v.primal for v in ins))]

    def do_static(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """A function of parameters; shadows go through its derivative."""
        del action, rides
        outs = bind(eqn, *(v.primal for v in ins))
        gates = [v.gate for v in ins if v.gate is not None]
        gate = functools.reduce(jnp.logical_and, gates) if gates else None
        if all(v.shadow is None for v in ins):
            return [Value(out, None, gate) for out in outs]
        shadows = _push_shadows(eqn, ins, outs)
        return [Value(out, shadow, gate) for out, shadow in zip(outs, shadows, strict=True)]

    def do_gate(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """`select(data, stop_gradient(w), w)`: see `rules.gated_operand`."""
        del eqn, rides
        predicate = jnp.reshape(ins[0].primal, -1)[0].astype(bool)
        taken = predicate if action.use == 2 else ~predicate
        return [_gated(ins[action.use], taken)]

    def do_use(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """A product, a convolution or an embedding."""
        use = action.use
        operand = use.operand if isinstance(use, ProductUse) else 0
        weight, data = ins[operand], ins[1 - operand]
        if weight.shadow is not None:
            ins = list(ins)
            ins[operand] = Value(shadow_site(weight.primal, weight.shadow))
            return self.do_plain(eqn, action, ins, rides)
        build: Any = self.sites.product if isinstance(use, ProductUse) else self.sites.embedding
        site = build(eqn, use, self.shares_factors(use))
        return [Value(site(data.primal, weight.primal, rides[use.index], weight.gate))]

    def do_call(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Inlines a `jit`."""
        del eqn
        return self.run(action.plan, ins, rides)

    def do_remat(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Rebuilds a rematerialised block around the sites inside it."""
        inside = {i: rides[i] for i in action.plan.use_indices if i in rides}

        def block(values: list[Value], inside: dict[int, Any]) -> list[Any]:
            return [v.primal for v in self.run(action.plan, values, inside)]

        outs = jax.checkpoint(block, **remat_arguments(eqn))(ins, inside)
        return [Value(out) for out in outs]

    def do_cond(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Rebuilds a `cond` or `switch` whose index all examples share."""
        del eqn
        index, *operands = ins
        indices = {i for plan in action.branches for i in plan.use_indices}
        inside = {i: rides[i] for i in sorted(indices) if i in rides}

        def branch(plan: Plan) -> Any:
            return lambda values, inside: [v.primal for v in self.run(plan, values, inside)]

        functions = [branch(plan) for plan in action.branches]
        outs = jax.lax.switch(index.primal, functions, operands, inside)
        return [Value(out) for out in outs]

    def do_select(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Runs every branch and selects, as `vmap` does with a branch on data.

        A branch that an example does not take gets no gradient, whatever its derivatives are.
        """
        del eqn
        index, *operands = ins
        number = jnp.clip(index.primal.astype(jnp.int32), 0, len(action.branches) - 1)
        results = []
        for i, plan in enumerate(action.branches):
            values = [
                Value(_masked(v.primal, number == i))
                if at in action.use
                else _gated(v, number == i)
                for at, v in enumerate(operands)
            ]
            results.append([v.primal for v in self.run(plan, values, rides)])
        return [Value(jax.lax.select_n(number, *cases)) for cases in zip(*results, strict=True)]

    def do_scan(self, eqn: Any, action: Any, ins: list[Value], rides: Rides) -> list[Value]:
        """Rebuilds a scan; shadows of slices and rides go along as its `xs`."""
        parts = scan_parts(eqn)
        nc, nk = parts.num_consts, parts.num_carry
        consts, init, xs = ins[:nc], ins[nc : nc + nk], ins[nc + nk :]
        inside = {i: rides[i] for i in action.plan.use_indices if i in rides}

        def body(carry: list[Any], slices: Any) -> tuple[list[Any], list[Any]]:
            values, inner = slices
            full = [*consts, *(Value(c) for c in carry), *values]
            outs = [v.primal for v in self.run(action.plan, full, inner)]
            return outs[:nk], outs[nk:]

        carry, ys = jax.lax.scan(
            body,
            [v.primal for v in init],
            (xs, inside),
            length=parts.length,
            reverse=parts.reverse,
            unroll=parts.unroll,
        )
        return [Value(out) for out in (*carry, *ys)]


def _gated(value: Value, taken: Array) -> Value:
    """The same static value, its cotangent zero where the example does not take the branch."""
    gate = taken if value.gate is None else value.gate & taken
    shadow = None if value.shadow is None else jnp.where(taken, value.shadow, 0)
    return Value(value.primal, shadow, gate)


def _masked(data: Any, taken: Array) -> Any:
    """The same data, its cotangent zero where the example does not take the branch."""
    if not jnp.issubdtype(jnp.result_type(data), jnp.floating):
        return data
    return jnp.where(taken, data, jax.lax.stop_gradient(data))


def _push_shadows(eqn: Any, ins: list[Value], outs: list[Any]) -> list[Array | None]:
    """The derivative of one equation applied to its inputs' shadows, in the shadow's dtype."""
    shadowed = {i: v.shadow for i, v in enumerate(ins) if v.shadow is not None}
    moving = list(shadowed)
    if eqn.primitive.name == "convert_element_type":
        floating = jnp.issubdtype(outs[0].dtype, jnp.floating)
        return [ins[0].shadow if floating else None]
    primals = [ins[i].primal for i in moving]

    def function(*values: Any) -> list[Any]:
        full = [v.primal for v in ins]
        for i, value in zip(moving, values, strict=True):
            full[i] = value
        return bind(eqn, *full)

    tangents = [shadowed[i].astype(p.dtype) for i, p in zip(moving, primals, strict=True)]
    _, pushed = jax.jvp(function, primals, tangents)
    return [
        t.astype(accumulator(t.dtype)) if jnp.issubdtype(o.dtype, jnp.floating) else None
        for t, o in zip(pushed, outs, strict=True)
    ]
