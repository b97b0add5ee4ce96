"""Extras of the installation that may be missing: one place says so."""

import importlib
from types import ModuleType

from rich.console import Console

__all__ = ["import_plots"]


def import_plots() -> ModuleType | None:
    """`fishjax.plots`, or `None` and one line on stderr where matplotlib is not installed."""
    try:
        return importlib.import_module("fishjax.plots")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
    # A warning is shown even to those who asked for quiet.
    Console(stderr=True).print(
        "no plots: matplotlib is not installed (pip install 'fishjax\\[plots]')",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return None
