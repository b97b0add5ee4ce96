"""Plots are PNG bytes that depend on their input alone and survive every edge."""

import io
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from fishjax import plots

BARS = [
    plots.AurocBar("epistemic", 0.7, 0.6, 0.8),
    plots.AurocBar("margin", 0.2, 0.0, 0.4),
    plots.AurocBar("perplexity", 1.0, 1.0, 1.0),
]
SHARES = {
    "layers/attention/query": np.array([0.1, 0.2]),
    "layers/mlp/gate": np.array([0.3, 0.1]),
    "embedding": np.array(0.25),
    "final_norm": np.array(0.05),
}
RNG = np.random.default_rng(0)


def pixels(png):
    assert png.startswith(b"\x89PNG")
    image = imread(io.BytesIO(png))
    assert image.std() > 0.01  # not blank
    return image


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.auroc_plot(BARS, title="t"),
        lambda: plots.auroc_plot(BARS[:1], title="t"),
        lambda: plots.auroc_plot([], title="one class"),
        lambda: plots.hot_spots_plot(SHARES, title="t"),
        lambda: plots.hot_spots_plot({"w": np.array(1.0)}, title="no layers"),
        lambda: plots.hot_spots_plot({"layers/w": np.array([1.0])}, title="only layers"),
        lambda: plots.hot_spots_plot(
            {"encoder/w": np.array([0.5, 0.1]), "decoder/w": np.array([0.4])}, title="two stacks"
        ),
        lambda: plots.hot_spots_plot({}, title="nothing"),
        lambda: plots.uncertainty_plot(
            RNG.normal(size=9) * 500, RNG.normal(size=9), RNG.random(9) < 0.5, title="t"
        ),
        lambda: plots.uncertainty_plot(
            np.array([-np.inf, -3.0]), np.array([-np.inf, -1.0]), np.ones(2, bool), title="zero"
        ),
        lambda: plots.uncertainty_plot(np.empty(0), np.empty(0), np.empty(0, bool), title="none"),
        lambda: plots.perplexity_plot(RNG.normal(size=9), RNG.normal(size=9) * 500, title="t"),
        lambda: plots.perplexity_plot(
            np.array([1.0, np.nan, 2.0]), np.array([-np.inf, np.nan, 3.0]), title="one left"
        ),
        lambda: plots.perplexity_plot(np.empty(0), np.empty(0), title="none"),
        lambda: plots.tokens_plot(-RNG.random(9), RNG.normal(size=9), title="t"),
        lambda: plots.tokens_plot(np.array([-1.0]), np.array([-np.inf]), title="an exact zero"),
        lambda: plots.tokens_plot(np.empty(0), np.empty(0), title="none"),
        lambda: plots.spectra_plot({"w": np.array([2.0, 1.0, 0.0])}),
    ],
)
def test_every_input_gives_a_picture(draw):
    pixels(draw())


def test_the_same_input_gives_the_same_bytes():
    assert plots.hot_spots_plot(SHARES, title="t") == plots.hot_spots_plot(SHARES, title="t")
    assert plots.auroc_plot(BARS, title="t") == plots.auroc_plot(BARS[::-1], title="t")


def test_pyplot_is_never_imported():
    assert "matplotlib.pyplot" not in sys.modules
