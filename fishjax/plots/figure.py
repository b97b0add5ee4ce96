"""Figures without global state: matplotlib's objects, never pyplot."""

import io

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["RIGHT", "WRONG", "point_axes", "say", "single_axes", "to_png"]

RIGHT, WRONG = "#0072B2", "#D55E00"  # a pair that stays apart for colour-blind readers


def single_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def point_axes(
    shown: Bool[np.ndarray, " N"], *, title: str, unseen: str, nothing: str
) -> tuple[Figure, Axes]:
    """A figure of one plot for the points that can be shown.

    Args:
      shown: which of the points; the title counts the others.
      title: of the figure.
      unseen: what the others are, behind their number.
      nothing: the sentence in place of a plot without any point.
    """
    figure, axes = single_axes(6.0, 4.6)
    left_out = int((~shown).sum())
    axes.set_title(f"{title}\n{left_out} {unseen}" if left_out else title, fontsize=9)
    if not shown.any():
        say(axes, nothing)
    return figure, axes


def say(axes: Axes, message: str) -> None:
    """Replaces a plot that has nothing to show by one sentence."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", wrap=True, transform=axes.transAxes)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
