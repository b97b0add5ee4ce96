"""Documents as windows in which every token is scored once: perplexity of plain text."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fishjax.models import Tokenizer

from .encoding import EncodedAnswer, EncodedQuestion
from .questions import TaskError
from .reading import is_index

__all__ = ["EncodedDocuments", "encode_documents"]


class EncodedDocuments(NamedTuple):
    """W windows, each a question whose one answer is the tokens that count.

    Attributes:
      windows: for `plan_batches`; the id of a window is `{document}:{place}`, with the place of
        its first counted token among the document's.
      documents: `[W]` index of the document of each window, ascending.
      num_bytes: `[W]` UTF-8 bytes of the text that all windows of its document score together.
    """

    windows: list[EncodedQuestion]
    documents: Int[np.ndarray, " W"]
    num_bytes: Int[np.ndarray, " W"]


def encode_documents(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    context_length: int,
    adds_bos: bool,
    stride: int | None = None,
) -> EncodedDocuments:
    """Cuts documents into windows that overlap so that every token is a target exactly once.

    The first window of a document scores all it can read. Each later one scores the next
    `stride` tokens and reads before them as many as fit, so that no token beyond the first
    window is given fewer than `context_length - stride + 1`; smaller strides cost more and
    lower the perplexity. With the default, reads are disjoint but for the last window's.

    With `adds_bos` the first token is scored too, given the begin-of-sequence id: these are the
    windows of lm-eval's `loglikelihood_rolling`. Without, nothing precedes it and it is only
    read, as in Hugging Face's guide (which also never scores the first token of a disjoint
    window; here it is given the token before).

    Bytes are those of the document as given, so nothing that the tokenizer adds counts. With
    `adds_bos` they are all of them; without, those of the first token are left out: of as many
    characters as it decodes to, a character that it shares with the next token not among them.

    Args:
      documents: texts.
      tokenizer: of the model.
      context_length: most ids the model reads.
      adds_bos: whether documents begin with `tokenizer.bos_id`.
      stride: new targets of a window, from 1 to `context_length`, which is the default.

    Returns:
      Windows in the order of the text. A document without a target has none.

    Raises:
      TaskError: a length or stride out of range, or no document has a target.
      TokenizerError: a character has no token.

    References:
      huggingface.co/docs/transformers/perplexity
    """
    stride = context_length if stride is None else stride
    if not is_index(context_length) or context_length < 1:
        raise TaskError(f"context_length is {context_length!r}: expected a positive integer")
    if not is_index(stride) or not 1 <= stride <= context_length:
        raise TaskError(
            f"stride is {stride!r}: expected an integer from 1 to the context length "
            f"{context_length}"
        )
    windows, owners, sizes = [], [], []
    for number, document in enumerate(documents):
        ids = tokenizer.encode(document, bos=adds_bos)
        only_read = 0 if adds_bos else _first_token_bytes(document, ids, tokenizer)
        for start, end in _spans(len(ids), context_length, stride):
            windows.append(
                _window(f"{number}:{start - int(adds_bos)}", ids, (start, end), context_length)
            )
            owners.append(number)
            sizes.append(len(document.encode()) - only_read)
    if not windows:
        raise TaskError(
            f"none of {len(documents)} documents has two tokens: there is nothing to predict"
        )
    return EncodedDocuments(windows, np.array(owners), np.array(sizes))


def _first_token_bytes(document: str, ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Of the document, without a space that the tokenizer put in front."""
    text = tokenizer.decode(ids[:1]).rstrip("\ufffd")  # what is left of half a character
    if text.startswith(" ") and not document.startswith(" "):
        text = text[1:]
    return len(document[: len(text)].encode())


def _spans(length: int, context_length: int, stride: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of targets; they cover 1, ..., length - 1 once."""
    start, end = 1, min(1 + context_length, length)
    while start < end:
        yield start, end
        start, end = end, min(end + stride, length)


def _window(
    name: str, ids: Sequence[int], span: tuple[int, int], context_length: int
) -> EncodedQuestion:
    start, end = span
    first = max(0, end - context_length - 1)
    kept = tuple(ids[first:end])
    digest = hashlib.sha256(json.dumps([end - start, *kept]).encode()).hexdigest()[:16]
    return EncodedQuestion(name, (EncodedAnswer(kept, end - start, first > 0),), digest)
