"""Plain text as batches of windows: what a Fisher is estimated on."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from .questions import TaskError
from .reading import read_jsonl, read_text, require_text

__all__ = ["SEPARATOR", "Windows", "read_documents", "windows"]

SEPARATOR = "<|endoftext|>"


class Windows(NamedTuple):
    """Windows of M sequences of T predictions.

    Attributes:
      inputs: `[M, T]` token ids that are read.
      targets: `[M, T]` the ids that follow.
      mask: `[M, T]` which targets are real.
    """

    inputs: Int[np.ndarray, "M T"]
    targets: Int[np.ndarray, "M T"]
    mask: Bool[np.ndarray, "M T"]

    def batch(self, start: int, size: int) -> "Windows":
        """Rows from `start`, filled up to `size` with rows that count nothing."""
        rows = [array[start : start + size] for array in self]
        missing = size - len(rows[0])
        return Windows(*(np.pad(array, ((0, missing), (0, 0))) for array in rows))


def read_documents(path: pathlib.Path) -> list[str]:
    """The documents of a corpus, stripped.

    Text between `<|endoftext|>` lines, or JSONL with the key `text`; plain or gzip, UTF-8.

    Raises:
      TaskError: missing, unreadable, malformed or without a document.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        documents = [_text(record, place) for place, _, record in read_jsonl(path)]
    else:
        documents = [part.strip() for part in read_text(path).split(SEPARATOR)]
        documents = [document for document in documents if document]
    if not documents:
        raise TaskError(f"{path} has no documents: expected text, or JSONL with the key text")
    return documents


def _text(record: dict[str, Any], place: str) -> str:
    if "text" not in record:
        raise TaskError(f"{place}: the keys are {', '.join(record)}: expected one of name text")
    return require_text(record["text"], "text", place).strip()


def windows(
    documents: Sequence[str], tokenizer: Any, *, length: int, adds_bos: bool = True
) -> Windows:
    """Every document as consecutive windows of `length` predictions; the last one is padded.

    Windows of a document share no target; each begins with the last token of the one before.

    Args:
      documents: texts.
      tokenizer: as `fishjax.models.Tokenizer`.
      length: T, at least 1.
      adds_bos: whether documents begin with `tokenizer.bos_id`.

    Raises:
      ValueError: length below 1, or no document has two tokens.
    """
    if length < 1:
        raise ValueError(f"length is {length}: expected at least 1")
    rows = []
    for document in documents:
        ids = tokenizer.encode(document, bos=adds_bos)
        rows += [ids[i : i + length + 1] for i in range(0, len(ids) - 1, length)]
    if not rows:
        raise ValueError("no document has two tokens: there is nothing to predict")
    padded = np.zeros((len(rows), length + 1), np.int32)
    mask = np.zeros((len(rows), length), bool)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
        mask[place, : len(row) - 1] = True
    return Windows(padded[:, :-1], padded[:, 1:], mask)
