"""Questions without choices: the model writes the answer, aliases say what is right."""

import pathlib
from typing import Any, NamedTuple

from .own_fields import own_id, own_prompt
from .questions import TaskError
from .reading import file_kind, parse_json, read_jsonl, read_table, require_text, unquoted

__all__ = ["OpenQuestion", "read_open_qa", "read_popqa", "read_triviaqa"]


class OpenQuestion(NamedTuple):
    """One question: continue the context, compare with the aliases.

    Attributes:
      id: unique within the task.
      context: prompt before the answer, exactly as read.
      aliases: true answers as people write them, at least one, the usual one first.
      metadata: what else the file says, e.g. the entity's popularity.
    """

    id: str
    context: str
    aliases: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def solution(self) -> str:
        """What follows the context in a solved example: the first alias."""
        return self.aliases[0] if self.context[-1:].isspace() else f" {self.aliases[0]}"


def read_triviaqa(path: pathlib.Path) -> list[OpenQuestion]:
    r"""A jsonl of `{"id", "question", "golden_answers"}`, or with the hub's `answer`.

    On the hub the id is `question_id` and the answers are `{"value", "aliases"}`. The prompt is
    `Q: {question}\nA:`. A question that still is a quoted csv field, as 67 of TriviaQA's are
    (`"What is ""The Solent""?"`), is unquoted.

    Raises:
      TaskError: a field is missing or of another type, or an answer is blank.
    """
    questions = []
    for place, number, record in read_jsonl(path):
        questions.append(_asked(_golden(record, place), number, place, _metadata(record, place)))
    return questions


def read_popqa(path: pathlib.Path) -> list[OpenQuestion]:
    r"""A jsonl of `{"id", "question", "golden_answers"}`, or the authors' tsv.

    There the answers are `possible_answers`, a JSON list as text, and all other columns (`s_pop`,
    `prop`, ...) become metadata. The prompt is `Q: {question}\nA:`.

    Raises:
      TaskError: as `read_triviaqa`.
    """
    if file_kind(path) == ".tsv":
        columns = {
            "question": ("question",),
            "golden_answers": ("golden_answers", "possible_answers"),
        }
        rows = read_table(path, columns)
    else:
        rows = read_jsonl(path)
    questions = []
    for place, number, record in rows:
        answers = record.get("golden_answers", record.get("possible_answers"))
        if isinstance(answers, str):
            answers = parse_json(answers, f"{place}: possible_answers")
        fields = ("id", "question", "golden_answers", "possible_answers")
        others = {name: value for name, value in record.items() if name not in fields}
        metadata = _metadata(record, place) if "metadata" in record else others
        question = record | {"golden_answers": answers}
        questions.append(_asked(question, number, place, metadata))
    return questions


def _golden(record: dict[str, Any], place: str) -> dict[str, Any]:
    """The record with `golden_answers`, also of the hub's layout; anything else as it is."""
    answer = record.get("answer")
    if "golden_answers" in record or not isinstance(answer, dict):
        return record
    aliases = answer.get("aliases", [])
    if not isinstance(aliases, list):
        raise TaskError(f"{place}: answer.aliases is {aliases!r}: expected a list")
    named = {"id": record["question_id"]} if "question_id" in record else {}
    return named | record | {"golden_answers": [answer.get("value"), *aliases]}


def _metadata(record: dict[str, Any], place: str) -> dict[str, Any]:
    metadata = record.get("metadata", {})
    if not isinstance(metadata, dict):
        raise TaskError(f"{place}: metadata is {metadata!r}: expected an object")
    return metadata


def _asked(
    record: dict[str, Any], number: int, place: str, metadata: dict[str, Any]
) -> OpenQuestion:
    text = unquoted(require_text(record.get("question"), "question", place)).strip()
    return OpenQuestion(
        id=own_id(record, number, place),
        context=f"Q: {text}\nA:",
        aliases=_aliases(record, "golden_answers", place),
        metadata=metadata,
    )


def read_open_qa(path: pathlib.Path) -> list[OpenQuestion]:
    r"""Your jsonl of `{"question", "answers"}` with optional `id` and `context`.

    The prompt is the question verbatim, after `context` and a line break if there is one: write
    `Q: ...\nA:` yourself if the model should see it. `answers`, which may also be called
    `aliases`, lists the true answers, the usual one first. All other fields become metadata.

    Raises:
      TaskError: a field is missing or of another type, or an answer is blank.
    """
    questions = []
    for place, number, record in read_jsonl(path):
        if "answers" in record and "aliases" in record:
            raise TaskError(f"{place}: answers and aliases: expected one of the two")
        name = "aliases" if "aliases" in record else "answers"
        questions.append(
            OpenQuestion(
                id=own_id(record, number, place),
                context=own_prompt(record, place),
                aliases=_aliases(record, name, place),
                metadata={
                    key: value
                    for key, value in record.items()
                    if key not in ("id", "context", "question", name)
                },
            )
        )
    return questions


def _aliases(record: dict[str, Any], name: str, place: str) -> tuple[str, ...]:
    """The answers without white space around them and without repetitions."""
    answers = record.get(name)
    if not isinstance(answers, list) or not answers:
        raise TaskError(f"{place}: {name} is {answers!r}: expected a list of true answers")
    stripped = [require_text(answer, "an answer", place).strip() for answer in answers]
    return tuple(dict.fromkeys(stripped))
