"""Solved examples in front of a question: few-shot prompts."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from .open_questions import OpenQuestion
from .questions import Question, TaskError
from .reading import is_index

__all__ = ["choose_shots", "few_shot", "with_shots"]

Q = TypeVar("Q", Question, OpenQuestion)


def choose_shots(pool: Sequence[Q], count: int, seed: int) -> list[Q]:
    """Draws examples; depends on nothing but its arguments.

    Questions without a single true answer and repetitions of a prompt are skipped. Where all
    questions have the same choices these are classes, and they take turns in random order: the
    first n examples of the list hold every class equally often or once more, for every n, as
    long as the pool does.

    Args:
      pool: questions of the same kind, best of another split than the evaluated one.
      count: number of examples, 0 or more.
      seed: of the draw, 0 or more.

    Raises:
      TaskError: a number out of range, or too few questions that can be examples.
    """
    for name, number in (("count", count), ("seed", seed)):
        if not is_index(number) or number < 0:
            raise TaskError(f"{name} is {number!r}: expected a non-negative integer")
    usable = _usable(pool)
    if len(usable) < count:
        raise TaskError(
            f"{len(usable)} of {len(pool)} questions can be examples: expected {count} with "
            "different prompts and one true answer each: add questions or lower the count"
        )
    classes, turns = _classes(usable), Counter()
    drawn = []
    for rank, index in enumerate(np.random.default_rng(seed).permutation(len(usable))):
        drawn.append((turns[classes[index]], rank, index))
        turns[classes[index]] += 1
    return [usable[index] for _, _, index in sorted(drawn)[:count]]


def few_shot(questions: Iterable[Q], pool: Sequence[Q], count: int, seed: int) -> list[Q]:
    """Puts `count` examples of a pool in front of every question, never the question itself.

    The same examples in the same order everywhere; a question that is one of them gets the next
    one of the draw instead.

    Args:
      questions: what to ask.
      pool: questions of the same kind; may hold `questions`.
      count: number of examples.
      seed: of the draw.

    Raises:
      TaskError: as `choose_shots`, or too few are left beside a question.
    """
    # two to spare: one may have the question's id, another its prompt
    number = min(count + 2, max(count, len(_usable(pool))))
    return with_shots(questions, choose_shots(pool, number, seed), count=count)


def with_shots(
    questions: Iterable[Q],
    shots: Sequence[Q],
    *,
    count: int | None = None,
    separator: str = "\n\n",
) -> list[Q]:
    r"""Puts solved examples (prompt and true answer) in front of every question.

    What all prompts of a question and its examples begin with, up to a blank line, is said only
    once: MMLU's description of the subject, the examples a LegalBench prompt already has.

    A question is never its own example: one with its id or with its prompt is left out. Ids made
    of line numbers may coincide between two files, so that a few questions lose an example:
    where all must have as many, choose two more than `count`.

    Args:
      questions: what to ask.
      shots: examples, in the order in which they are shown.
      count: use only the first `count` examples of each question; all by default.
      separator: between two examples and before the question.

    Returns:
      As many questions in the same order, which differ in the context.

    Raises:
      TaskError: an example has several true answers, or a question has fewer than `count`.
    """
    for shot in shots:
        if shot.solution is None:
            raise TaskError(
                f"the example {shot.id!r} has several true answers: expected one, as "
                "choose_shots sees to"
            )
    solved = []
    for question in questions:
        others = [s for s in shots if s.id != question.id and s.context != question.context]
        if count is not None and len(others) < count:
            raise TaskError(
                f"question {question.id!r}: {len(others)} of {len(shots)} examples have another id "
                f"and another prompt: expected {count}: choose more from a larger pool, or lower "
                "the count"
            )
        context = _prompt(question, others[:count], separator)
        solved.append(question._replace(context=context))
    return solved


def _usable(pool: Sequence[Q]) -> list[Q]:
    """Questions with one true answer, the first of each prompt."""
    by_prompt = {q.context: q for q in reversed(pool) if q.solution is not None}
    return list(reversed(by_prompt.values()))


def _prompt(
    question: Question | OpenQuestion, shots: Sequence[Question | OpenQuestion], separator: str
) -> str:
    header = _shared_paragraphs([question.context, *(shot.context for shot in shots)])
    parts = [*(f"{shot.context}{shot.solution}" for shot in shots), question.context]
    return header + separator.join(part.removeprefix(header) for part in parts)


def _shared_paragraphs(contexts: Sequence[str]) -> str:
    """What all begin with, up to a blank line; nothing for a single context."""
    if len(contexts) == 1:
        return ""
    leading = zip(*(context.split("\n\n")[:-1] for context in contexts), strict=False)
    shared = itertools.takewhile(lambda paragraphs: len(set(paragraphs)) == 1, leading)
    return "".join(f"{paragraphs[0]}\n\n" for paragraphs in shared)


def _classes(questions: Sequence[Question | OpenQuestion]) -> list[str | None]:
    """The class of each question; None where answers are no classes."""
    choices = {question.choices for question in questions if isinstance(question, Question)}
    return [question.solution if len(choices) == 1 else None for question in questions]
