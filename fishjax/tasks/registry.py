"""Tasks by name."""

import pathlib
from collections.abc import Callable

from .lettered import read_commonsenseqa, read_mmlu
from .multiple_choice import read_multiple_choice
from .questions import Question, Task, TaskError
from .reading import is_index
from .truthfulqa import read_truthfulqa_mc1, read_truthfulqa_mc2

__all__ = ["TASKS", "load_task"]

TASKS: dict[str, Callable[[pathlib.Path], list[Question]]] = {
    "truthfulqa_mc1": read_truthfulqa_mc1,
    "truthfulqa_mc2": read_truthfulqa_mc2,
    "commonsenseqa": read_commonsenseqa,
    "mmlu": read_mmlu,
    "multiple_choice": read_multiple_choice,
}
"""Name of every task and the function that reads its file: a new task is one row."""


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
    if name not in TASKS:
        raise TaskError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}")
    if limit is not None and (not is_index(limit) or limit < 1):
        raise TaskError(f"limit is {limit!r}: expected a positive number of questions")
    path = pathlib.Path(path)
    questions = TASKS[name](path)
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
    return Task(name, tuple(questions[:limit]))
