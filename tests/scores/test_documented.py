"""`docs/scores.md` has every score, with the direction and, but for its letter u, the unit here."""

import pathlib
import re

import pytest

from fishjax import scores

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "scores.md").read_text()
EVERY = (
    *scores.SCORES,
    *scores.TOKEN_SCORES,
    *scores.GENERATION_SCORES,
    *scores.ASKED_SCORES,
)


def rows():
    """Name of a score to the cells of its row."""
    found = {}
    for line in PAGE.split("## A row")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if len(cells) > 1 else ():
            assert name not in found, name
            found[name] = cells
    return found


def test_the_page_has_the_scores_of_the_registry():
    assert set(rows()) == {score.name for score in EVERY}


@pytest.mark.parametrize("score", EVERY, ids=lambda score: score.name)
def test_direction_unit_and_what_is_compared(score):
    cells = rows()[score.name]
    assert cells[2] == f"more {score.direction.name.lower()}"
    if "as above" not in cells:
        # the page calls a weight's standard deviation u
        assert cells[4].replace("/u", "/weight") == score.unit
        assert cells[3].startswith(f"{score.low:g}".replace("-inf", "−∞").replace("-", "−")) or (
            score.name == "maximum_probability"  # 1/K, where the registry has a bound for any K
        )
    if score in scores.SCORES:
        assert cells[5] == ("yes" if score.compares else "no")
