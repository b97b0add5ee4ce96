"""What the collectives of a compiled program move, read from its text."""

import math
import re

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_LINE = re.compile(rf"= (.*?) ({_KINDS})(?:-start)?\(")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def moved(text):
    """[(kind, elements), ...]: one entry a buffer; the pieces of an all-to-all are one buffer."""
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if match:
            shapes = _SHAPE.findall(re.sub(r"/\*.*?\*/", "", match.group(1)))
            sizes = [math.prod(map(int, s.split(","))) if s else 1 for s in shapes]
            sizes = [sum(sizes)] if match.group(2) == "all-to-all" else sizes
            found += [(match.group(2), size) for size in sizes]
    return found
