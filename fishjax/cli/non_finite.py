"""Says which questions overflowed: the run goes on, and nobody should have to look for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

__all__ = ["warn_non_finite"]

_SHOWN = 10


def warn_non_finite(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a warning with the ids of rows whose status is `non_finite`, also to the quiet."""
    ids = [str(row["id"]) for row in rows if row["status"] == "non_finite"]
    if not ids:
        return
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    Console(stderr=True).print(
        f"warning: {len(ids)} of {len(rows)} questions gave numbers that are not finite and are "
        f"left out of every measure: {', '.join(ids[:_SHOWN])}{more}; their rows have the status "
        "non_finite",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
