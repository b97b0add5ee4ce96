"""Figures without global state: matplotlib's objects, never pyplot."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["RIGHT", "WRONG", "say", "single_axes", "to_png"]

RIGHT, WRONG = "#0072B2", "#D55E00"  # a pair that stays apart for colour-blind readers


def single_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def say(axes: Axes, message: str) -> None:
    """Replaces a plot that has nothing to show by one sentence."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", wrap=True, transform=axes.transAxes)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
