"""Heat maps of the two uncertainties over exposure and conflict."""

import io as streams
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from fishjax import io
from fishjax.cli.demo_statistics import Scored, join

__all__ = ["cell_means", "save_heat_maps"]


def cell_means(scored: Scored, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of `values` [N] in every cell.

    Returns:
      Means `[C, E]` (NaN where a cell has no question), conflicts `[C]`, exposures `[E]`.
    """
    conflicts, row = np.unique(scored.conflict, return_inverse=True)
    exposures, column = np.unique(scored.exposure, return_inverse=True)
    total = np.zeros((len(conflicts), len(exposures)))
    count = np.zeros_like(total)
    np.add.at(total, (row, column), values)
    np.add.at(count, (row, column), 1)
    means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return means, conflicts, exposures


def save_heat_maps(seeds: Sequence[Mapping[str, Scored]], path: pathlib.Path) -> None:
    """Draws scale-free epistemic and aleatoric uncertainty by exposure and conflict, as PNG.

    Each cell shows the mean over its questions and over the training seeds: of
    log10 of the scale-free form, and of p(1-p).

    Raises:
      ImportError: matplotlib is not installed.
      OutputError: writing failed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for row, choices in zip(axes, (2, 4), strict=True):
        joined = [join(sets[f"recall_{choices}"], sets[f"conflict_{choices}"]) for sets in seeds]
        log10 = [scored.scores["scale_free"] / np.log(10) for scored in joined]
        aleatoric = [np.exp(scored.scores["aleatoric"]) for scored in joined]
        title = f"{choices} choices: log10 scale-free epistemic ‖∇p‖² / (p(1−p))²"
        _draw(row[0], joined, log10, title)
        _draw(row[1], joined, aleatoric, f"{choices} choices: aleatoric p(1−p)")
    figure.suptitle(f"Uncertainty of the chosen answer, mean over {len(seeds)} training seeds")
    buffer = streams.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    io.write_atomic(path, buffer.getvalue())


def _draw(axis, joined: Sequence[Scored], values: Sequence[np.ndarray], title: str) -> None:
    cells = [cell_means(*pair) for pair in zip(joined, values, strict=True)]
    means = np.mean([cell[0] for cell in cells], axis=0)
    _, conflicts, exposures = cells[0]
    image = axis.imshow(means, aspect="auto", cmap="viridis")
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(exposures)), [f"{e:g}" for e in exposures])
    axis.set_yticks(
        range(len(conflicts)), [f"{100 - 100 * c:.0f}/{100 * c:.0f}" for c in conflicts]
    )
    axis.set_xlabel("exposure (mentions in the training text)")
    axis.set_ylabel("conflict (shares of the values)")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (row, column), value in np.ndenumerate(means):
        colour = "white" if value < middle else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axis.figure.colorbar(image, ax=axis)
