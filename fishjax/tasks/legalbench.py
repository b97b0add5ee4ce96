"""LegalBench with its authors' few-shot prompts.

References:
  Guha et al. (2023), arXiv 2308.11462; prompts of github.com/HazyResearch/legalbench.
"""

import pathlib
import re
from typing import Any

from .questions import Question, TaskError
from .reading import file_kind, read_json, read_jsonl, read_table, read_text, require_text

__all__ = ["PROMPTS_NAME", "read_legalbench"]

PROMPTS_NAME = "base_prompts.json"
"""File of the prompt templates, keyed by task, beside the questions."""

_PUBLISHED_NAME = "base_prompt.txt"
_SLOT = re.compile(r"\{\{(.*?)\}\}")
_FIELDS = ("task", "split", "text", "answer")


def read_legalbench(path: pathlib.Path, *, split: str = "test") -> list[Question]:
    """A jsonl of `{"task", "split", "text", "answer"}` with `base_prompts.json` beside it.

    Or a task's tsv as the authors publish it, with its `base_prompt.txt` beside it (`_read_tsv`).
    The prompt is the task's template with `{{text}}` replaced, verbatim as in the authors'
    code: a space at the end of a text stays. The choices of a task are its distinct answers in
    the whole file, sorted. The task and all other fields (`slice`) become metadata.

    Args:
      path: of the jsonl, plain or gzip.
      split: rows that become questions; "train" holds the examples that the templates show.

    Raises:
      TaskError: a field or a task's template is missing, a template has another slot, or no
        row is of the split.
    """
    if file_kind(path) == ".tsv":
        return _read_tsv(path)
    rows = list(read_jsonl(path))
    answers: dict[str, set[str]] = {}
    for place, _, record in rows:
        for field in _FIELDS:
            require_text(record.get(field), field, place)
        answers.setdefault(record["task"], set()).add(record["answer"])
    templates = _templates(path, set(answers))
    questions = [
        _question(f"line-{number}", record, templates[record["task"]], answers[record["task"]])
        for _, number, record in rows
        if record["split"] == split
    ]
    if not questions:
        found = sorted({record["split"] for _, _, record in rows})
        raise TaskError(f"{path} holds no rows of the split {split!r}: it has {found}")
    return questions


def _read_tsv(path: pathlib.Path) -> list[Question]:
    """`tasks/TASK/SPLIT.tsv` of the authors' repository: one task, all its rows are questions.

    The slots of the template are columns of the file; the choices are its distinct answers.
    """
    file = path.with_name(_PUBLISHED_NAME)
    if not file.exists():
        raise TaskError(f"{file} is missing: expected the task's prompt beside {path.name}")
    template = read_text(file)
    slots = dict.fromkeys(_SLOT.findall(template))
    if not slots:
        raise TaskError(f"{file}: expected slots such as {{{{text}}}}, named like columns")
    rows = list(read_table(path, {name: (name,) for name in ("answer", *slots)}))
    texts = tuple(sorted({require_text(row["answer"], "answer", at) for at, _, row in rows}))
    task = path.absolute().parent.name
    return [
        Question(
            id=f"row-{number}",
            context=_SLOT.sub(lambda slot, row=row: row[slot[1]], template),
            choices=tuple(f" {text}" for text in texts),
            labels=tuple(int(text == row["answer"]) for text in texts),
            texts=texts,
            metadata={"task": task} | {k: v for k, v in row.items() if k not in ("answer", *slots)},
        )
        for _, number, row in rows
    ]


def _question(id: str, record: dict[str, Any], template: str, answers: set[str]) -> Question:
    texts = tuple(sorted(answers))
    return Question(
        id=id,
        context=template.replace("{{text}}", record["text"]),
        choices=tuple(f" {text}" for text in texts),
        labels=tuple(int(text == record["answer"]) for text in texts),
        texts=texts,
        metadata={k: v for k, v in record.items() if k not in ("split", "text", "answer")},
    )


def _templates(path: pathlib.Path, tasks: set[str]) -> dict[str, str]:
    """The template of every task, with no slot but `{{text}}`."""
    file = path.with_name(PROMPTS_NAME)
    if not file.exists():
        raise TaskError(
            f"{file} is missing: expected the prompt templates of {sorted(tasks)} beside "
            f"{path.name}: copy them there"
        )
    templates = read_json(file)
    if not isinstance(templates, dict):
        raise TaskError(f"{file}: {type(templates).__name__}: expected {{task: template}}")
    for task in sorted(tasks):
        template = require_text(templates.get(task), f"the template of {task!r}", str(file))
        slots = [f"{{{{{name}}}}}" for name in _SLOT.findall(template)]
        if set(slots) != {"{{text}}"}:
            raise TaskError(
                f"{file}: the template of {task!r} has the slots {slots}: expected {{{{text}}}}"
            )
    return templates
