"""The command line: `fishjax score`, `fishjax evaluate` and `fishjax demo`."""

from fishjax.cli.main import main

__all__ = ["main"]
