"""Every function of fishjax is checked against its annotations while tests run."""

import inspect
import typing

import beartype
import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Checks what is imported from now on.

    jaxtyping binds arguments and compares their dimensions on every call, and makes two functions
    for each that it checks, closures every time they are made: a third of the time that tests
    trace. Only annotations that name dimensions need it; beartype alone checks the others.
    """
    jaxtyping.jaxtyped = _checked  # what the hook writes in front of every function
    jaxtyping.install_import_hook("fishjax", "beartype.beartype")


def _checked(*, typechecker):
    with_dimensions = _jaxtyped(typechecker=typechecker)

    def check(fn):
        if inspect.isclass(fn) or any(map(_of_jaxtyping, fn.__annotations__.values())):
            return with_dimensions(fn)
        return beartype.beartype(fn)

    return check


def _of_jaxtyping(hint) -> bool:
    """Whether a part of an annotation, or all that is only a name yet, may be jaxtyping's."""
    if isinstance(hint, str):
        return True
    own = inspect.isclass(hint) and hint.__module__ == "jaxtyping"
    return own or any(map(_of_jaxtyping, typing.get_args(hint)))
