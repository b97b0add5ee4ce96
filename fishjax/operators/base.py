"""What an operator is: a frozen pytree without methods; generic functions dispatch on its type."""

import dataclasses
from typing import Any, TypeVar

import jax

__all__ = ["Operator", "frozen_pytree", "rebuild", "static"]

_Class = TypeVar("_Class")


class Operator:
    """A symmetric linear operator on parameter pytrees.

    It has no fields and no methods. An operator type is one file: a frozen dataclass made with
    `frozen_pytree` and one registration for each generic function (`multiply.register(Type)`
    and so on). A generic function is one file too, with one registration for each type.

    An operator on one array serves as the metric of one parameter: `leaf_metrics` returns such.
    """


def static(default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is part of the pytree's structure, not of its arrays."""
    return dataclasses.field(default=default, metadata={"static": True})


def frozen_pytree(cls: type[_Class]) -> type[_Class]:
    """Registers a frozen dataclass as a pytree whose constructor checks and whose copies do not.

    JAX rebuilds pytrees around whatever it likes (batched arrays, shapes, `None`), so only the
    user's call of the constructor runs `__post_init__`. Used as a decorator over
    `dataclasses.dataclass(frozen=True, eq=False)`; fields made with `static` are structure.
    """
    fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(value: _Class) -> tuple[Any, Any]:
        children = [(jax.tree_util.GetAttrKey(n), getattr(value, n)) for n in data]
        return children, tuple(getattr(value, n) for n in meta)

    def flatten(value: _Class) -> tuple[Any, Any]:
        return [getattr(value, n) for n in data], tuple(getattr(value, n) for n in meta)

    def unflatten(structure: Any, children: Any) -> _Class:
        value = object.__new__(cls)
        for name, field in (*zip(data, children, strict=True), *zip(meta, structure, strict=True)):
            object.__setattr__(value, name, field)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def rebuild(value: _Class, **changes: Any) -> _Class:
    """A copy with some fields changed and no check: the fields may be stacked over layers."""
    copy = object.__new__(type(value))
    fields: Any = dataclasses.fields(value)  # type: ignore[arg-type]
    for field in fields:
        new = changes[field.name] if field.name in changes else getattr(value, field.name)
        object.__setattr__(copy, field.name, new)
    return copy
