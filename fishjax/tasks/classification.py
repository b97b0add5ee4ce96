"""Classification as multiple choice: every class is a word after the prompt.

A data set is one `ClassTask`. Prompts and words are those of EleutherAI's lm-eval (`SST2`; `NLI`
as its ANLI, GPT-3's) and, for sets it does not have, of Zhao et al. (`AG_NEWS`, `TREC`).

References:
  Brown et al. (2020), arXiv 2005.14165; Zhao et al. (2021), arXiv 2102.09690.
"""

import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .questions import Question, TaskError
from .reading import is_index, read_table, require_text

__all__ = ["AG_NEWS", "NLI", "SST2", "TREC", "ClassTask", "class_reader"]


class ClassTask(NamedTuple):
    """What turns a row of a csv file into a question.

    Attributes:
      columns: columns with text, which are the slots of the prompt.
      prompt: what the model reads, in the syntax of `str.format`.
      words: the answer of each class, by the label in the column `label`.
      names: other names under which columns, `label` among them, are published.
      classes: the label of each class where it is published as text.
      no_label: labels of rows whose annotators did not agree; such rows are left out.
    """

    columns: tuple[str, ...]
    prompt: str
    words: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    classes: tuple[str, ...] = ()
    no_label: tuple[str, ...] = ()


AG_NEWS = ClassTask(
    columns=("text",),
    prompt=(
        "Classify the news articles into the categories of World, Sports, Business, and "
        "Technology.\n\nArticle: {text}\nAnswer:"
    ),
    words=("World", "Sports", "Business", "Technology"),
    classes=("World", "Sports", "Business", "Sci/Tech"),
)

SST2 = ClassTask(
    columns=("text",),
    prompt="{text}\nQuestion: Is this sentence positive or negative?\nAnswer:",
    words=("negative", "positive"),
    names=MappingProxyType({"text": ("sentence",)}),
    classes=("negative", "positive"),
)

TREC = ClassTask(
    columns=("text",),
    prompt=(
        "Classify the questions based on whether their answer type is a Number, Location, "
        "Person, Description, Entity, or Abbreviation.\n\nQuestion: {text}\nAnswer Type:"
    ),
    words=("Abbreviation", "Entity", "Description", "Person", "Location", "Number"),
    names=MappingProxyType({"label": ("coarse_label",)}),
    classes=("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
)

NLI = ClassTask(
    columns=("premise", "hypothesis"),
    prompt="{premise}\nQuestion: {hypothesis} True, False, or Neither?\nAnswer:",
    words=("True", "Neither", "False"),
    names=MappingProxyType(
        {"premise": ("sentence1",), "hypothesis": ("sentence2",), "label": ("gold_label",)}
    ),
    classes=("entailment", "neutral", "contradiction"),
    no_label=("-1", "-"),
)


def class_reader(task: ClassTask) -> Callable[[pathlib.Path], list[Question]]:
    """Builds the function that reads a data set's csv, tsv or jsonl.

    Texts are stripped; columns that are neither text nor label become metadata. A label is the
    index of a word, or the name of the class as published.

    Args:
      task: columns, prompt and words.

    Returns:
      A function of the path. It raises TaskError where a column is missing, a text is blank or
      a label is not of a class.
    """

    def read(path: pathlib.Path) -> list[Question]:
        columns = {name: (name, *task.names.get(name, ())) for name in (*task.columns, "label")}
        rows = read_table(path, columns)
        return [_question(task, *row) for row in rows if str(row[2]["label"]) not in task.no_label]

    columns = ", ".join(task.columns)
    read.__doc__ = f"A csv, tsv or jsonl with {columns} and label ({_labels(task)})."
    return read


def _question(task: ClassTask, place: str, number: int, row: dict[str, Any]) -> Question:
    texts = {name: require_text(row[name], name, place).strip() for name in task.columns}
    gold = _class(task, row["label"], place)
    return Question(
        id=f"row-{number}",
        context=task.prompt.format(**texts),
        choices=tuple(f" {word}" for word in task.words),
        labels=tuple(int(index == gold) for index in range(len(task.words))),
        texts=task.words,
        metadata={k: v for k, v in row.items() if k not in (*task.columns, "label")},
    )


def _class(task: ClassTask, label: Any, place: str) -> int:
    """Its index: the label itself, or the place of its name."""
    written = str(label) if is_index(label) else label
    if isinstance(written, str):
        for names in (tuple(map(str, range(len(task.words)))), task.classes):
            if written in names:
                return names.index(written)
    raise TaskError(f"{place}: label is {label!r}: expected one of {_labels(task)}")


def _labels(task: ClassTask) -> str:
    return ", ".join(f"{index} {word}" for index, word in enumerate(task.words))
