"""`fishjax tasks`: what score and generate can read."""

import argparse
import inspect

from rich.console import Console
from rich.table import Table

from fishjax.cli.text import TEXT_TASK
from fishjax.tasks import OPEN_TASKS, SEPARATOR, TASKS

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Runs the command; the parser's namespace in, the exit status out."""
    del args
    console = Console()
    for title, registry in (("fishjax score", TASKS), ("fishjax generate", OPEN_TASKS)):
        table = Table(title=title)
        table.add_column("task", no_wrap=True)
        table.add_column("file")
        for name, reader in registry.items():
            table.add_row(name, (inspect.getdoc(reader) or "").split("\n")[0])
        if registry is TASKS:
            table.add_row(TEXT_TASK, f"Text between {SEPARATOR} lines, or a jsonl of text fields.")
        console.print(table)
    return 0
