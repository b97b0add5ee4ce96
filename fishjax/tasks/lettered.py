"""Questions whose options are lettered in the prompt and answered by a letter.

CommonsenseQA and MMLU, zero-shot, with the prompts of EleutherAI's lm-eval.

References:
  Talmor et al. (2019), arXiv 1811.00937; Hendrycks et al. (2021), arXiv 2009.03300.
"""

import pathlib
import string
from typing import Any

from .questions import Question, TaskError
from .reading import is_index, read_jsonl, read_table, require_text

__all__ = ["read_commonsenseqa", "read_mmlu"]


def read_commonsenseqa(path: pathlib.Path) -> list[Question]:
    """The authors' jsonl: `{"answerKey", "id", "question": {"stem", "choices"}}`, or the hub's.

    There `question` is the stem, `choices` are `{"label": [...], "text": [...]}`. The prompt is
    `Question: {stem}`, the options `A. ...` and `Answer:`, a line each.
    """
    questions = []
    for place, number, record in read_jsonl(path):
        body = _nested(record, place)
        if not isinstance(body, dict):
            raise TaskError(f"{place}: question is {body!r}: expected an object with a stem")
        stem = require_text(body.get("stem"), "question.stem", place)
        metadata = {k: v for k, v in body.items() if k not in ("stem", "choices")}
        questions.append(
            _lettered(
                id=require_text(record.get("id", f"line-{number}"), "id", place),
                stem=f"Question: {stem.strip()}",
                options=_options(body.get("choices"), place),
                answer=record.get("answerKey"),
                metadata=metadata,
                place=place,
            )
        )
    return questions


def read_mmlu(path: pathlib.Path) -> list[Question]:
    """A csv with the columns subject, question, A, B, C, D, answer (a letter), or a jsonl.

    A jsonl may have the hub's `choices`, a list of four, and `answer`, an index. Other columns
    (`category`) become metadata. The prompt is the subject's description, the question, the
    options and `Answer:`.
    """
    needed = ("subject", "question", "answer")
    questions = []
    for place, number, row in read_table(path, {name: (name,) for name in needed}):
        subject = require_text(row["subject"], "subject", place)
        text = require_text(row["question"], "question", place).strip()
        description = (
            "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n"
        )
        questions.append(
            _lettered(
                id=f"row-{number}",
                stem=description + text,
                options=_four_options(row, place),
                answer=_letter(row["answer"]),
                metadata={"subject": subject}
                | {n: v for n, v in row.items() if n not in (*needed, *"ABCD", "choices")},
                place=place,
            )
        )
    return questions


def _nested(record: dict[str, Any], place: str) -> Any:
    """The authors' `question` object, also of the hub's flat layout; anything else as it is."""
    stem, choices = record.get("question"), record.get("choices")
    if not isinstance(stem, str) or not isinstance(choices, dict):
        return stem
    labels, texts = choices.get("label"), choices.get("text")
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise TaskError(f"{place}: choices is {choices!r}: expected as many label as text")
    pairs = [{"label": a, "text": b} for a, b in zip(labels, texts, strict=True)]
    known = ("id", "question", "choices", "answerKey")
    others = {name: value for name, value in record.items() if name not in known}
    return others | {"stem": stem, "choices": pairs}


def _four_options(row: dict[str, Any], place: str) -> list[str]:
    """Of the columns A to D, or of the hub's list."""
    if "choices" in row and not row.keys() & set("ABCD"):
        choices = row["choices"]
        if not isinstance(choices, list) or len(choices) != 4:
            raise TaskError(f"{place}: choices is {choices!r}: expected a list of 4")
        return [require_text(choice, "a choice", place) for choice in choices]
    if missing := [letter for letter in "ABCD" if letter not in row]:
        raise TaskError(f"{place}: there are no columns {', '.join(missing)}")
    return [require_text(row[letter], f"option {letter}", place) for letter in "ABCD"]


def _letter(answer: Any) -> Any:
    """Of an index; anything else as it is."""
    return "ABCD"[answer] if is_index(answer) and answer in range(4) else answer


def _options(choices: Any, place: str) -> list[str]:
    """Texts of the choices, whose labels must be A, B, C, ... in order."""
    if not isinstance(choices, list) or not 1 <= len(choices) <= len(string.ascii_uppercase):
        raise TaskError(f"{place}: question.choices is {choices!r}: expected 1 to 26 choices")
    for letter, choice in zip(string.ascii_uppercase, choices, strict=False):
        if not isinstance(choice, dict) or choice.get("label") != letter:
            raise TaskError(f"{place}: choice {choice!r}: expected an object with label {letter}")
    return [require_text(choice.get("text"), "a choice's text", place) for choice in choices]


def _lettered(
    *, id: str, stem: str, options: list[str], answer: Any, metadata: dict[str, Any], place: str
) -> Question:
    letters = string.ascii_uppercase[: len(options)]
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        raise TaskError(f"{place}: answer is {answer!r}: expected one of {', '.join(letters)}")
    lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    return Question(
        id=id,
        context="\n".join([stem, *lines, "Answer:"]),
        choices=tuple(f" {letter}" for letter in letters),
        labels=tuple(int(letter == answer) for letter in letters),
        texts=tuple(options),
        metadata=metadata,
    )
