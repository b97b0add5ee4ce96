"""Epistemic against aleatoric uncertainty of the model's answers."""

import math

import numpy as np
from jaxtyping import Bool, Float

from fishjax.plots.figure import RIGHT, WRONG, point_axes, to_png

__all__ = ["uncertainty_plot"]


def uncertainty_plot(
    log_epistemic: Float[np.ndarray, " N"],
    log_aleatoric: Float[np.ndarray, " N"],
    correct: Bool[np.ndarray, " N"],
    *,
    title: str,
) -> bytes:
    r"""A PNG: one point a question, coloured by correctness, both axes in powers of ten.

    Args:
      log_epistemic: natural logarithm of $\|\nabla p\|^2$ of the chosen answer. It need not be
        representable as a number itself; exact zeros (`-inf`) are left out and counted.
      log_aleatoric: natural logarithm of $p(1-p)$.
      correct: whether the answer was right.
      title: of the figure.
    """
    shown = np.isfinite(log_epistemic) & np.isfinite(log_aleatoric)
    nothing = "No question has a finite, positive uncertainty."
    figure, axes = point_axes(shown, title=title, unseen="exact zeros not shown", nothing=nothing)
    if not shown.any():
        return to_png(figure)
    x, y = log_aleatoric / math.log(10), log_epistemic / math.log(10)
    for right, colour, marker, name in (
        (False, WRONG, "x", "wrong"),
        (True, RIGHT, "o", "correct"),
    ):
        chosen = shown & (correct == right)
        axes.scatter(
            x[chosen], y[chosen],
            s=18, alpha=0.6, color=colour, marker=marker, linewidths=1,
            label=f"{name} ({int(chosen.sum())})",
        )  # fmt: skip
    axes.set_xlabel("aleatoric: log₁₀ p(1 − p)")
    axes.set_ylabel("epistemic: log₁₀ ‖∇p‖²")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return to_png(figure)
