"""Plain text: which documents move the model's weights, and which tokens of one window."""

import math

import numpy as np
from jaxtyping import Float

from fishjax.plots.figure import RIGHT, WRONG, point_axes, say, single_axes, to_png

__all__ = ["perplexity_plot", "tokens_plot"]

_NORM = "‖∇ log p‖²"


def perplexity_plot(
    log_perplexity: Float[np.ndarray, " N"],
    log_norm_per_token: Float[np.ndarray, " N"],
    *,
    title: str,
) -> bytes:
    r"""A PNG: one point a document (or window), both axes in powers of ten.

    Args:
      log_perplexity: natural logarithm, that is the mean negative log-likelihood of a token.
      log_norm_per_token: natural logarithm of $\|\nabla\log p\|^2$ divided by the tokens; exact
        zeros (`-inf`) are left out and counted.
      title: of the figure.
    """
    shown = np.isfinite(log_perplexity) & np.isfinite(log_norm_per_token)
    nothing = "Nothing has a finite, positive gradient norm."
    figure, axes = point_axes(shown, title=title, unseen="not shown", nothing=nothing)
    if not shown.any():
        return to_png(figure)
    x, y = log_perplexity[shown] / math.log(10), log_norm_per_token[shown] / math.log(10)
    axes.scatter(x, y, s=18, alpha=0.6, color=RIGHT, linewidths=0)
    axes.set_xlabel("log₁₀ perplexity")
    axes.set_ylabel(f"epistemic: log₁₀ {_NORM} per token")
    axes.grid(alpha=0.3)
    return to_png(figure)


def tokens_plot(
    log_likelihoods: Float[np.ndarray, " T"],
    log_squared_norms: Float[np.ndarray, " T"],
    *,
    title: str,
) -> bytes:
    r"""A PNG: surprise and squared gradient norm of every token along a window of text.

    Args:
      log_likelihoods: of the tokens in nats.
      log_squared_norms: natural logarithm of $\|\nabla\log p_t\|^2$; what is not finite is a gap.
      title: of the figure.
    """
    figure, axes = single_axes(9.0, 3.6)
    axes.set_title(title, fontsize=9)
    if not len(log_likelihoods):
        say(axes, "No window has finite values of its tokens.")
        return to_png(figure)
    places = np.arange(len(log_likelihoods))
    axes.bar(places, -log_likelihoods, width=1.0, color=RIGHT, alpha=0.5)
    axes.set_xlabel("token of the window")
    axes.set_ylabel("surprise: −log p (nats)", color=RIGHT)
    beside = axes.twinx()
    norms = np.where(np.isfinite(log_squared_norms), log_squared_norms, np.nan) / math.log(10)
    beside.plot(places, norms, color=WRONG, linewidth=1.0, marker=".", markersize=3)
    beside.set_ylabel(f"epistemic: log₁₀ {_NORM}", color=WRONG)
    return to_png(figure)
