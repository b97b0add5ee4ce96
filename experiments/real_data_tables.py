"""The tables of `experiments/README.md` from the kept results of `experiments.real_data`."""

import collections
import json
import pathlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["facts", "write"]

_LONGEST = 160
BEGIN, END = "<!-- written by experiments.real_data -->", "<!-- end -->"
_CHOICES = ("perplexity", "maximum_probability", "epistemic", "aleatoric", "scale_free")
_ANSWERS = (
    "greedy_perplexity", "semantic_entropy", "lexical_similarity", "self_consistency", "p_true",
    "verbalised_confidence", "sequence_epistemic", "sequence_aleatoric", "sequence_scale_free",
)  # fmt: skip

Kept = dict[str, Any]
"""What was kept of a run: `command.json` and, below `metrics`, its metrics if it has some."""


def facts(directory: pathlib.Path) -> dict[str, Any]:
    """What only the rows of a run know, where there is a choice.

    `chance` is the accuracy of guessing; `favourite` the share of the answer chosen most often,
    by its place among the choices. Of training: the mean loss of the first and last ten steps.
    """
    losses = [row["loss"] for row in _lines(directory / "losses.jsonl")]
    if losses:
        return {"losses": [statistics.fmean(losses[:10]), statistics.fmean(losses[-10:])]}
    rows = [row for row in _lines(directory / "rows.jsonl") if len(row.get("labels", ())) > 1]
    rows = [row for row in rows if row["status"] == "ok"]
    if not rows:
        return {}
    places = collections.Counter(row["chosen"] for row in rows)
    return {
        "chance": sum(sum(row["labels"]) / len(row["labels"]) for row in rows) / len(rows),
        "favourite": max(places.values()) / len(rows),
    }


def write(readme: pathlib.Path, results: pathlib.Path, names: Iterable[str]) -> None:
    """Puts the tables of all runs that were kept between the README's two marks."""
    kept = {name: one for name in names if (one := _kept(results / name)) is not None}
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    parts = [_choices(kept), _answers(kept), _groups(kept), _others(kept)]
    readme.write_text(before + "\n\n".join([BEGIN, *filter(None, parts), END]) + after)


def _lines(path: pathlib.Path) -> list[Kept]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _kept(folder: pathlib.Path) -> Kept | None:
    if not (folder / "command.json").exists():
        return None
    metrics = folder / "metrics.json"
    found = json.loads((folder / "command.json").read_text())
    return found | ({"metrics": json.loads(metrics.read_text())} if metrics.exists() else {})


def _choices(kept: dict[str, Kept]) -> str:
    heads = ["run", "questions", "truncated", "accuracy", "chance", "favourite"]
    heads += [f"AUROC {_CHOICES[0].replace('_', ' ')}", *_words(_CHOICES[1:]), "CPU s"]

    def row(name: str, one: Kept) -> list[str]:
        metrics = one["metrics"]
        numbers = [f"{metrics['accuracy']:.3f}", f"{one['chance']:.3f}", f"{one['favourite']:.2f}"]
        counts = [str(metrics["num_scored"]), str(metrics["num_truncated"])]
        return [name, *counts, *numbers, *_areas(metrics, _CHOICES), f"{one['cpu_seconds']:.0f}"]

    return _table(heads, kept, lambda one: "chance" in one, row)


def _answers(kept: dict[str, Kept]) -> str:
    heads = ["run", "questions", "exact match", f"AUROC {_ANSWERS[0].replace('_', ' ')}"]
    heads += [*_words(_ANSWERS[1:]), "CPU s (generation, scores)"]

    def row(name: str, one: Kept) -> list[str]:
        metrics = one["metrics"]
        generated = kept.get(f"{name}_answers", {}).get("cpu_seconds", float("nan"))
        numbers = [str(metrics["num_scored"]), f"{metrics['accuracy']:.3f}"]
        times = f"{generated:.0f}, {one['cpu_seconds']:.0f}"
        return [name, *numbers, *_areas(metrics, _ANSWERS), times]

    return _table(heads, kept, lambda one: "--generations" in one["command"], row)


def _groups(kept: dict[str, Kept]) -> str:
    """Of `evaluate --by`: a line a group; where there is no interval, why."""
    names = ("epistemic", "maximum_probability", "perplexity")
    heads = ["run", "by", "group", "questions", "accuracy", f"AUROC {names[0]}"]
    rows = []
    for name, one in kept.items():
        for field, found in one.get("metrics", {}).get("by", {}).items():
            for group in found["groups"]:
                areas = [_area(group["scores"].get(score)) for score in names]
                about = [name.removesuffix("_groups"), field, _group(group)]
                numbers = [str(group["num_scored"]), f"{group['accuracy']:.3f}"]
                rows.append([*about, *numbers, *areas, group["note"] or ""])
    return _lines_of([*heads, *_words(names[1:]), "note"], rows)


def _group(group: Kept) -> str:
    if "low" in group:
        return f"{group['low']:.0f} to {group['high']:.0f}"
    return group["value"] or "none"


def _others(kept: dict[str, Kept]) -> str:
    def chosen(one: Kept) -> bool:
        told_elsewhere = "chance" in one or "--generations" in one["command"]
        return not told_elsewhere and "by" not in one.get("metrics", {})

    def row(name: str, one: Kept) -> list[str]:
        return [name, f"`{_said(one)}`", f"{one['cpu_seconds']:.0f}"]

    return _table(["run", "printed", "CPU s"], kept, chosen, row)


def _said(one: Kept) -> str:
    """The printed line that says most, without tables and next steps."""
    if "losses" in one:
        first, last = one["losses"]
        return f"loss {first:.3f} in the first ten steps, {last:.3f} in the last ten"
    lines = [line.strip() for line in one["printed"]]
    ends = ("│", "┃", "└", "┏", "┡", "┌")
    plain = [x for x in lines if x and not x.startswith(ends) and not x.endswith(ends)]
    wanted = ("perplexity", "exact match", "trace", "hot spots", "fallbacks")
    found = [line for line in plain if any(word in line for word in wanted)]
    said = next(iter(found or plain), "")
    while len(said) > _LONGEST and ", " in said:  # whole phrases: a cut number is another one
        said = said.rpartition(", ")[0]
    return said


def _areas(metrics: Kept, names: Sequence[str]) -> list[str]:
    return [_area(metrics["scores"].get(name)) for name in names]


def _area(entry: Kept | None) -> str:
    if entry is None or entry["auroc"] is None:
        return "–"
    if entry["interval"] is None:
        return f"{entry['auroc']:.2f}"
    low, high = entry["interval"]
    return f"{entry['auroc']:.2f} [{low:.2f}, {high:.2f}]"


def _words(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _table(
    heads: list[str],
    kept: dict[str, Kept],
    chosen: Callable[[Kept], bool],
    row: Callable[[str, Kept], list[str]],
) -> str:
    return _lines_of(heads, [row(name, one) for name, one in kept.items() if chosen(one)])


def _lines_of(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
