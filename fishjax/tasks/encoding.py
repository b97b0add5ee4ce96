"""Questions as token ids, with the conventions of EleutherAI's lm-eval."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

from fishjax.models import Tokenizer

from .questions import Question, TaskError

__all__ = ["EncodedAnswer", "EncodedQuestion", "encode_questions"]


class EncodedAnswer(NamedTuple):
    """One prompt and answer.

    Attributes:
      token_ids: what is left of the prompt, then the answer; the model reads all but the last.
      num_targets: how many of the last ids are the answer.
      truncated: the prompt lost ids on its left.
    """

    token_ids: tuple[int, ...]
    num_targets: int
    truncated: bool


class EncodedQuestion(NamedTuple):
    """A question's answers.

    Attributes:
      id: the question's.
      answers: one for every choice.
      prompt_hash: first 16 hex digits of the SHA-256 of context and choices.
    """

    id: str
    answers: tuple[EncodedAnswer, ...]
    prompt_hash: str

    @property
    def truncated(self) -> bool:
        """Whether any answer's prompt was truncated."""
        return any(answer.truncated for answer in self.answers)


def encode_questions(
    questions: Iterable[Question], tokenizer: Tokenizer, context_length: int, adds_bos: bool
) -> list[EncodedQuestion]:
    """Encodes every `context + choice`.

    As lm-eval does: white space at the end of the context moves to the front of the choice;
    context and choice are encoded together and what follows as many ids as the context alone
    has is the answer; an empty context becomes one begin-of-sequence id. Of a sequence longer
    than the model reads (`context_length` ids plus the last, which is only predicted) the
    leftmost ids are dropped, the begin-of-sequence id first.

    Args:
      questions: what to encode.
      tokenizer: of the model.
      context_length: most ids the model reads.
      adds_bos: prompts start with `tokenizer.bos_id`.

    Returns:
      As many encoded questions, in the same order.

    Raises:
      TaskError: an answer has no token of its own, or alone is longer than the context; names
        the question.
      TokenizerError: a character has no token.
    """
    encoded = []
    for question in questions:
        context, moved = _split_trailing_space(question.context)
        prefix = tokenizer.encode(context, bos=adds_bos) if context else [tokenizer.bos_id]
        answers = []
        for choice in question.choices:
            joint = tokenizer.encode(context + moved + choice, bos=adds_bos or not context)
            answers.append(_fit(question.id, choice, prefix, joint[len(prefix) :], context_length))
        encoded.append(EncodedQuestion(question.id, tuple(answers), _prompt_hash(question)))
    return encoded


def _split_trailing_space(context: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :]


def _fit(
    name: str, choice: str, prefix: list[int], targets: list[int], context_length: int
) -> EncodedAnswer:
    if not targets:
        raise TaskError(
            f"question {name!r}: the answer {choice!r} has no token of its own after the "
            "prompt: change the prompt's end or the answer"
        )
    if len(targets) > context_length:
        raise TaskError(
            f"question {name!r}: the answer {choice[:40]!r}... has {len(targets)} tokens, the "
            f"model reads {context_length}: shorten the answer or use a model with more context"
        )
    whole = (*prefix, *targets)
    kept = whole[-(context_length + 1) :]
    return EncodedAnswer(kept, len(targets), len(kept) < len(whole))


def _prompt_hash(question: Question) -> str:
    text = json.dumps([question.context, *question.choices])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
