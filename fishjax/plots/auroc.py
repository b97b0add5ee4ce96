"""How well each score predicts a correct answer."""

from collections.abc import Sequence
from typing import NamedTuple

from fishjax.plots.figure import RIGHT, say, single_axes, to_png

__all__ = ["AurocBar", "auroc_plot"]


class AurocBar(NamedTuple):
    """One score's AUROC and the ends of its interval."""

    name: str
    auroc: float
    low: float
    high: float


def auroc_plot(bars: Sequence[AurocBar], *, title: str) -> bytes:
    """A PNG: scores sorted by AUROC, with intervals and the line of no information at 0.5."""
    figure, axes = single_axes(7.5, 1.4 + 0.24 * max(len(bars), 4))
    axes.set_title(title, fontsize=9)
    if not bars:
        say(axes, "No AUROC: all answers are correct, or none is.")
        return to_png(figure)
    ordered = sorted(bars, key=lambda bar: bar.auroc)
    heights = range(len(ordered))
    centres = [bar.auroc for bar in ordered]
    errors = [
        [max(bar.auroc - bar.low, 0.0) for bar in ordered],
        [max(bar.high - bar.auroc, 0.0) for bar in ordered],
    ]
    axes.axvline(0.5, color="0.6", linewidth=1, linestyle="--", zorder=0)
    axes.errorbar(centres, heights, xerr=errors, fmt="o", color=RIGHT, markersize=4, capsize=2)
    axes.set_yticks(list(heights), [bar.name for bar in ordered], fontsize=8)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlim(
        min(0.4, *(bar.low for bar in ordered)) - 0.02,
        max(0.6, *(bar.high for bar in ordered)) + 0.02,
    )
    axes.set_xlabel("AUROC of predicting a correct answer (95 % bootstrap interval)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    return to_png(figure)
