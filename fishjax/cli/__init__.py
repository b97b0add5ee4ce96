"""The command line: `fishjax score` and `fishjax evaluate`."""

from fishjax.cli.main import main

__all__ = ["main"]
