"""Asks a model whether its own answers are right: P(True) and a stated confidence."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fishjax.cli.errors import InputError
from fishjax.cli.meshes import data_size, on_mesh, spread
from fishjax.compilation import compiler_options
from fishjax.models import LanguageModel, Sampling, TokenizerError, generate
from fishjax.scores import (
    P_TRUE_OPTIONS,
    p_true,
    p_true_prompt,
    parse_confidence,
    verbalised_prompt,
)
from fishjax.tasks import (
    OpenQuestion,
    Question,
    TaskError,
    answer_log_likelihoods,
    chat_question,
    encode_questions,
    plan_batches,
)

__all__ = ["Asking"]

_FRAME = re.compile(r"\A(?:Q:|Question:)?\s*(.*?)\s*(?:\n(?:A|Answer):)?\s*\Z", re.DOTALL)
_REPLY_TOKENS = 16


class Asking:
    """Puts the questions of Kadavath et al. and of Tian et al. to a model.

    They are asked without solved examples.

    Args:
      model: that gave the answers.
      chat: ask in the model's own chat template.
      mesh: of devices, None for one.
      batch_tokens: tokens of a batch with its padding.

    Raises:
      InputError: the context has no room for a reply.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        chat: bool = False,
        mesh: Mesh | None = None,
        batch_tokens: int = 8192,
    ):
        if model.config.context_length <= _REPLY_TOKENS:
            raise InputError(
                f"--ask: a reply needs {_REPLY_TOKENS} tokens beside its prompt, and the context "
                f"of {model.name} has {model.config.context_length}: leave it out"
            )
        self._model, self._chat, self._mesh = model, chat, mesh
        self._batch_tokens = batch_tokens
        self._adds_bos = model.adds_bos and not chat
        self._likelihoods: Callable[..., Any] = jax.jit(
            answer_log_likelihoods(model.apply_fn), compiler_options=compiler_options()
        )

    def scores(
        self,
        questions: Sequence[OpenQuestion],
        answers: Sequence[str],
        samples: Sequence[Sequence[str]],
    ) -> list[dict[str, float | None]]:
        """`p_true`, `verbalised_confidence` and the reply it was read from, of each answer.

        Args:
          questions: as the task has them, without examples and chat template.
          answers: to judge.
          samples: other answers of the model.

        Raises:
          InputError: a prompt cannot be made or encoded.
        """
        bare = [question._replace(context=_bare(question.context)) for question in questions]
        try:
            truths = self._p_true(
                [
                    q._replace(context=p_true_prompt(q.context, answer, ideas))
                    for q, answer, ideas in zip(bare, answers, samples, strict=True)
                ]
            )
            prompts = [
                self._encoded(q._replace(context=verbalised_prompt(q.context, answer)))
                for q, answer in zip(bare, answers, strict=True)
            ]
        except (TaskError, TokenizerError) as error:
            raise InputError(f"--ask: the model cannot read what it is asked: {error}") from None
        replies = generate(
            self._model, prompts, Sampling(_REPLY_TOKENS, stop=("\n",)), mesh=self._mesh
        )
        return [
            {"p_true": None if math.isnan(truth) else truth,
             "verbalised_confidence": parse_confidence(reply.text),
             "verbalised_reply": reply.text}  # type: ignore[dict-item]
            for truth, reply in zip(truths, replies, strict=True)
        ]  # fmt: skip

    def _encoded(self, question: OpenQuestion) -> list[int]:
        tokenizer = self._model.tokenizer
        if self._chat:
            question = chat_question(question, tokenizer)
        ids = tokenizer.encode(question.context, bos=self._adds_bos)
        return ids[-(self._model.config.context_length - _REPLY_TOKENS) :]

    def _p_true(self, asked: Sequence[OpenQuestion]) -> list[float]:
        model = self._model
        questions = [
            Question(q.id, q.context, P_TRUE_OPTIONS, (1, 0), P_TRUE_OPTIONS, {}) for q in asked
        ]
        if self._chat:
            questions = [chat_question(question, model.tokenizer) for question in questions]
        encoded = encode_questions(
            questions, model.tokenizer, model.config.context_length, self._adds_bos
        )
        found = [float("nan")] * len(questions)
        parts = data_size(self._mesh)
        for batch in plan_batches(encoded, batch_tokens=self._batch_tokens, multiple=parts):
            rows = {n: x.reshape(-1, *x.shape[2:]) for n, x in batch.groups.items()}
            with on_mesh(self._mesh):
                values = self._likelihoods(model.params, spread(rows, self._mesh))
            values = np.asarray(values).reshape(batch.mask.shape)
            for place, index in enumerate(batch.indices):
                if index >= 0:
                    found[index] = p_true(*map(float, values[place]))
        return found


def _bare(context: str) -> str:
    """The question without the frame `Q: ... A:`."""
    match = _FRAME.match(context)
    return match[1] if match else context
