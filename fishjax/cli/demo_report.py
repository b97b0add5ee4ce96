"""The demo's numbers over training seeds, as a dictionary, as tables and in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fishjax.cli.demo_statistics import MEASURES, Estimate, Scored, aurocs, join, t_interval

__all__ = ["compute_report", "conclusions", "print_report"]

CHOICES = (2, 4)
_EPISTEMIC_CORRECT = {
    "recall": "epistemic_correct_recall",
    "conflict": "epistemic_correct_conflict",
}

Report = dict[str, dict[str, Any]]


def compute_report(seeds: Sequence[Mapping[str, Scored]]) -> Report:
    """Every measure and AUROC for 2 and 4 choices, over the training seeds.

    Args:
      seeds: for each training seed the scored question sets by name (`recall_2`, …).

    Returns:
      `{"2": {"measures": {key: Estimate or None}, "recall": {score: Estimate or None},
      "conflict": …, "accuracy": {set: Estimate}}, "4": …}`.
    """
    return {str(choices): _report(seeds, choices) for choices in CHOICES}


def _report(seeds: Sequence[Mapping[str, Scored]], choices: int) -> dict[str, Any]:
    groups = []
    for sets in seeds:
        recall, conflict = sets[f"recall_{choices}"], sets[f"conflict_{choices}"]
        groups.append({"recall": recall, "conflict": conflict, "crossed": join(recall, conflict)})
    report: dict[str, Any] = {
        "measures": {
            key: t_interval([measure.function(group[measure.questions]) for group in groups])
            for key, measure in MEASURES.items()
        },
        "accuracy": {
            kind: t_interval([float(group[kind].correct.mean()) for group in groups])
            for kind in ("recall", "conflict")
        },
    }
    for kind in ("recall", "conflict"):
        tables = [aurocs(group[kind]) for group in groups]
        report[kind] = {name: t_interval([table[name] for table in tables]) for name in tables[0]}
    return report


def print_report(report: Report, console: Console) -> None:
    """Prints the tables, which fit 80 columns, and the conclusions."""
    console.print(_measures_table(report), "")
    for choices, part in report.items():
        console.print(_aurocs_table(choices, part), "")
    for sentence in conclusions(report):
        console.print(sentence, soft_wrap=True, highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left", show_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, no_wrap=True)
    return table


def _measures_table(report: Report) -> Table:
    title = "Spearman correlation (x ~ y | held fixed): mean [95 % interval]"
    table = _table(title, "correlation", *(f"{choices} choices" for choices in report))
    for key, measure in MEASURES.items():
        cells = [format_estimate(part["measures"][key], signed=True) for part in report.values()]
        table.add_row(measure.label, *cells)
    return table


def _aurocs_table(choices: str, part: Mapping[str, Any]) -> Table:
    kinds = ("recall", "conflict")
    title = f"AUROC of predicting a correct answer, {choices} choices: mean [95 % interval]"
    table = _table(title, "score", *kinds)
    table.add_row("(accuracy)", *(format_estimate(part["accuracy"][kind]) for kind in kinds))
    for name in part["recall"]:
        estimates = [part[kind][name] for kind in kinds]
        table.add_row(name.replace("_", " "), *map(format_estimate, estimates))
    return table


def format_estimate(estimate: Estimate | None, *, signed: bool = False) -> str:
    """`0.71 [0.68, 0.74]`, or `undefined`."""
    if estimate is None:
        return "undefined"
    sign = "+" if signed else ""
    return f"{estimate.mean:{sign}.2f} \\[{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def conclusions(report: Report) -> list[str]:
    """Sentences computed from the numbers; an effect is an interval that excludes no effect.

    "Carries signal" is judged twice: by the AUROC of the epistemic score (interval above .5),
    and beyond p(1-p) (interval of its partial correlation with being correct below 0).
    """
    return [sentence for choices, part in report.items() for sentence in _conclude(choices, part)]


def _conclude(choices: str, part: Mapping[str, Any]) -> list[str]:
    measures = part["measures"]
    exposure, alone, conflict = (
        measures[key]
        for key in (
            "epistemic_exposure_given_aleatoric",
            "scale_free_exposure",
            "aleatoric_conflict_given_exposure",
        )
    )
    return [
        f"{choices} choices, exposure: with p(1-p) held fixed, facts stated more often have "
        f"{_level(exposure, ' epistemic uncertainty')}; the scale-free form alone is "
        f"{_level(alone)} for them.",
        f"{choices} choices, conflict: with exposure held fixed, facts stated with more conflict "
        f"have {_level(conflict, ' aleatoric uncertainty')}.",
        *(
            f"{choices} choices, errors, {how}: epistemic uncertainty on recall "
            f"{_errors(signal['recall'])}, on conflict {_errors(signal['conflict'])}. "
            f"{_CLAIM}: {_verdict(signal)}."
            for how, signal in _signals(part).items()
        ),
    ]


_CLAIM = '"Parameter uncertainty carries signal under conflict, not for recall"'


def _signals(part: Mapping[str, Any]) -> dict[str, dict[str, int | None]]:
    """1 where epistemic uncertainty is higher on errors, -1 lower, 0 unclear, None undefined."""
    beyond = {kind: _side(part["measures"][key], 0.0) for kind, key in _EPISTEMIC_CORRECT.items()}
    return {
        "by AUROC": {kind: _side(part[kind]["epistemic"], 0.5) for kind in _EPISTEMIC_CORRECT},
        # Lower where the answer is correct means higher on errors.
        "beyond p(1-p)": {kind: None if side is None else -side for kind, side in beyond.items()},
    }


def _side(estimate: Estimate | None, of: float) -> int | None:
    """1 where the interval lies above `of`, -1 below, 0 where it contains it."""
    if estimate is None:
        return None
    return int(estimate.low > of) - int(estimate.high < of)


def _level(estimate: Estimate | None, what: str = "") -> str:
    if estimate is None:
        return f"undefined{what}"
    word = {-1: "lower", 0: "not clearly different", 1: "higher"}[_side(estimate, 0.0) or 0]
    return f"{word}{what} (rho {estimate.mean:+.2f})"


def _errors(side: int | None) -> str:
    return {
        None: "is undefined",
        -1: "points the wrong way (lower on errors)",
        0: "shows no clear difference",
        1: "is higher on errors",
    }[side]


def _verdict(signal: Mapping[str, int | None]) -> str:
    if None in signal.values():
        return "cannot be judged"
    if signal["conflict"] != 1:
        return "not supported, no clear signal under conflict"
    if signal["recall"] == 1:
        return "half supported, there is signal under conflict but for recall too"
    return "supported"
