"""Tasks by name: questions with choices, and open questions."""

import pathlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from .classification import AG_NEWS, NLI, SST2, TREC, class_reader
from .legalbench import read_legalbench
from .lettered import read_commonsenseqa, read_mmlu
from .multiple_choice import read_multiple_choice
from .open_questions import OpenQuestion, read_open_qa, read_popqa, read_triviaqa
from .questions import Question, Task, TaskError
from .reading import is_index
from .truthfulqa import read_truthfulqa_mc1, read_truthfulqa_mc2

__all__ = ["OPEN_TASKS", "TASKS", "load_open_task", "load_task"]

TASKS: dict[str, Callable[[pathlib.Path], list[Question]]] = {
    "truthfulqa_mc1": read_truthfulqa_mc1,
    "truthfulqa_mc2": read_truthfulqa_mc2,
    "commonsenseqa": read_commonsenseqa,
    "mmlu": read_mmlu,
    "legalbench": read_legalbench,
    "ag_news": class_reader(AG_NEWS),
    "sst2": class_reader(SST2),
    "trec": class_reader(TREC),
    "nli": class_reader(NLI),
    "multiple_choice": read_multiple_choice,
}
"""Name of every task and the function that reads its file: a new task is one row."""

OPEN_TASKS: dict[str, Callable[[pathlib.Path], list[OpenQuestion]]] = {
    "triviaqa": read_triviaqa,
    "popqa": read_popqa,
    "open_qa": read_open_qa,
}
"""Likewise for questions without choices."""

Q = TypeVar("Q", Question, OpenQuestion)


def load_task(
    name: str, path: str | pathlib.Path, *, seed: int = 0, limit: int | None = None
) -> Task:
    """Reads the questions of a file, plain or gzip, all of them checked.

    Args:
      name: a key of `TASKS`.
      path: the task's file.
      seed: for tasks that draw something. None of today's does: all keep the file's order of
        questions and choices.
      limit: keep only the first `limit` questions, in file order.

    Returns:
      The task; every question has a unique id.

    Raises:
      TaskError: an unknown name, a limit below 1, or a file with an error; names file and line.
    """
    del seed
    return Task(name, _read_checked(TASKS, name, pathlib.Path(path), limit))


def load_open_task(
    name: str, path: str | pathlib.Path, *, limit: int | None = None
) -> tuple[OpenQuestion, ...]:
    """Reads the open questions of a file, plain or gzip, all of them checked.

    Args:
      name: a key of `OPEN_TASKS`.
      path: the task's file.
      limit: keep only the first `limit` questions, in file order.

    Returns:
      The questions in file order; every one has a unique id.

    Raises:
      TaskError: as `load_task`.
    """
    return _read_checked(OPEN_TASKS, name, pathlib.Path(path), limit)


def _read_checked(
    readers: Mapping[str, Callable[[pathlib.Path], list[Q]]],
    name: str,
    path: pathlib.Path,
    limit: int | None,
) -> tuple[Q, ...]:
    """The first questions of a file in which all are sound."""
    if name not in readers:
        raise TaskError(f"unknown task {name!r}: expected one of {', '.join(readers)}{_hint(name)}")
    if limit is not None and (not is_index(limit) or limit < 1):
        raise TaskError(f"limit is {limit!r}: expected a positive number of questions")
    questions = readers[name](path)
    if not questions:
        raise TaskError(f"{path} holds no questions")
    first: dict[str, int] = {}
    for number, question in enumerate(questions, start=1):
        if question.id in first:
            raise TaskError(
                f"{path}: questions {first[question.id]} and {number} have the same id "
                f"{question.id!r}: ids must be unique"
            )
        first[question.id] = number
    return tuple(questions[:limit])


def _hint(name: str) -> str:
    """Where a task of the other kind belongs; where tasks of all kinds are listed."""
    if name in OPEN_TASKS:
        return f" ({name} has no choices: its answers are generated first, fishjax generate)"
    if name in TASKS:
        return f" ({name} has choices: they are scored, fishjax score)"
    return " (fishjax tasks lists those of generated answers and of plain text as well)"
