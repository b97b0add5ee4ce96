"""From a task's questions to the prompts of a run: solved examples, chat templates."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fishjax.cli.errors import InputError
from fishjax.models import LanguageModel
from fishjax.tasks import (
    OPEN_TASKS,
    OpenQuestion,
    Question,
    chat_question,
    few_shot,
    load_open_task,
    load_task,
)

__all__ = ["adds_bos", "prompted"]

Q = TypeVar("Q", Question, OpenQuestion)


def prompted(questions: Sequence[Q], settings: Any, tokenizer: Any) -> tuple[Q, ...]:
    """The questions as the model sees them.

    Args:
      questions: of the task, with choices or open.
      settings: `shots`, `shots_data`, `task`, `data`, `seed` and `chat` of a run.
      tokenizer: of the model.

    Raises:
      InputError: no chat template, or a file of examples that none is taken from.
      TaskError: the examples cannot be used, or the template fails.
    """
    found = tuple(questions)
    if settings.shots_data is not None and not settings.shots:
        raise InputError("--shots-data without --shots: say how many examples a prompt has")
    if settings.shots:
        found = tuple(few_shot(found, _pool(settings), settings.shots, settings.seed))
    if settings.chat:
        if getattr(tokenizer, "chat_template", None) is None:
            raise InputError("--chat: the model has no chat template in tokenizer_config.json")
        found = tuple(chat_question(question, tokenizer) for question in found)
    return found


def adds_bos(model: LanguageModel, settings: Any) -> bool:
    """Whether a prompt is encoded with a begin of sequence; chat templates write their own."""
    return model.adds_bos and not settings.chat


def _pool(settings: Any) -> Any:
    """What examples are drawn from."""
    file = settings.shots_data or settings.data
    if settings.task in OPEN_TASKS:
        return load_open_task(settings.task, file)
    return load_task(settings.task, file).questions
