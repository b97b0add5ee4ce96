"""Sharding constraints on the example axis: what they become when one example is followed.

The single-example program has an example axis of length one, so a user's constraint
`P("data", None, "model")` on `[N, T, d]` is one on `[1, T, d]` there. Its names on axes of
length one belong to the axis that `vmap` adds: they are handed to it as `spmd_axis_name`, and
the rest stays with the rest of the axes. Without this, `vmap` leaves the example axis open and
pins the data axis of the mesh to an axis of length one, so XLA replicates every activation.
"""

from typing import Any

from jax.extend import core as jex_core
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["constraint_without_unit_axes", "example_mesh_axes", "names"]


def names(entry: Any) -> tuple[str, ...]:
    """The mesh axes that one entry of a PartitionSpec names."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def example_mesh_axes(jaxpr: Any) -> tuple[str, ...]:
    """The mesh axes over which the program's own constraints spread the examples."""
    for eqn in jaxpr.eqns:
        found: tuple[str, ...] = ()
        if eqn.primitive.name == "sharding_constraint":
            shape = eqn.invars[0].aval.shape
            found = tuple(n for e, s in zip(_entries(eqn), shape, strict=True) if s == 1 for n in e)
        for inner in _inner_jaxprs(eqn):
            found = found or example_mesh_axes(inner)
        if found:
            return found
    return ()


def constraint_without_unit_axes(eqn: Any, taken: tuple[str, ...]) -> dict[str, Any] | None:
    """Parameters of a constraint on the value without its axes of length one.

    None where nothing is left to say: the other axes would use a mesh axis that the examples
    are spread over (`taken`), which no array can do.
    """
    shape = eqn.invars[0].aval.shape
    sharding = eqn.params["sharding"]
    kept = [a for a, s in enumerate(shape) if s != 1]
    entries = _entries(eqn)
    if not isinstance(sharding, NamedSharding) or eqn.params["layout"] is not None:
        return None
    if set(taken) & {name for a in kept for name in entries[a]}:
        return None
    open_axes = eqn.params["unconstrained_dims"]
    spec = PartitionSpec(*(entries[a] or None for a in kept))
    return {
        **eqn.params,
        "sharding": NamedSharding(sharding.mesh, spec),
        "unconstrained_dims": frozenset(i for i, a in enumerate(kept) if a in open_axes),
    }


def _entries(eqn: Any) -> list[tuple[str, ...]]:
    sharding = eqn.params["sharding"]
    rank = len(eqn.invars[0].aval.shape)
    spec = tuple(sharding.spec) if isinstance(sharding, NamedSharding) else ()
    return [names(entry) for entry in spec] + [()] * (rank - len(spec))


def _inner_jaxprs(eqn: Any) -> list[Any]:
    inner = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, jex_core.ClosedJaxpr):
                inner.append(item.jaxpr)
            elif isinstance(item, jex_core.Jaxpr):
                inner.append(item)
    return inner
