"""Plots as PNG bytes: arrays in, no files and no global state. Needs the extra `plots`."""

from fishjax.plots.auroc import AurocBar, auroc_plot
from fishjax.plots.hot_spots import hot_spots_plot
from fishjax.plots.spectra import spectra_plot
from fishjax.plots.text import perplexity_plot, tokens_plot
from fishjax.plots.uncertainty import uncertainty_plot

__all__ = [
    "AurocBar",
    "auroc_plot",
    "hot_spots_plot",
    "perplexity_plot",
    "spectra_plot",
    "tokens_plot",
    "uncertainty_plot",
]
