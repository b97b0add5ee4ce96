"""Tasks as batches, with the conventions of EleutherAI's lm-eval.

`load_task` reads questions, `with_shots` and `chat_question` rewrite their prompts,
`encode_questions` turns them into token ids, `plan_batches` pads them to few shapes,
`answer_log_likelihoods` is the function of parameters and rows to differentiate.
`load_open_task` reads questions without choices and `exact_match` judges their answers.
`encode_documents` prepares plain text.
"""

from .batching import BatchPlan, plan_batches
from .chat import apply_chat_template, chat_question
from .corpus import SEPARATOR, Windows, read_documents, windows
from .documents import EncodedDocuments, encode_documents
from .encoding import EncodedAnswer, EncodedQuestion, encode_questions
from .likelihoods import TokenStatistics, answer_log_likelihoods, token_log_likelihoods
from .matching import clean_answer, contains_match, exact_match
from .open_questions import OpenQuestion
from .questions import Question, Task, TaskError
from .registry import OPEN_TASKS, TASKS, load_open_task, load_task
from .shared_prompts import SHARED_LEAVES
from .shots import choose_shots, few_shot, with_shots

__all__ = [
    "OPEN_TASKS",
    "SEPARATOR",
    "SHARED_LEAVES",
    "TASKS",
    "BatchPlan",
    "EncodedAnswer",
    "EncodedDocuments",
    "EncodedQuestion",
    "OpenQuestion",
    "Question",
    "Task",
    "TaskError",
    "TokenStatistics",
    "Windows",
    "answer_log_likelihoods",
    "apply_chat_template",
    "chat_question",
    "choose_shots",
    "clean_answer",
    "contains_match",
    "encode_documents",
    "encode_questions",
    "exact_match",
    "few_shot",
    "load_open_task",
    "load_task",
    "plan_batches",
    "read_documents",
    "token_log_likelihoods",
    "windows",
    "with_shots",
]
