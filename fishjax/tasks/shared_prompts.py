"""Questions whose answers share their prompt: the prompt once, every answer as a continuation."""

from collections.abc import Sequence

import numpy as np

from .encoding import EncodedQuestion

__all__ = ["SHARED_LEAVES", "no_targets", "pad_shared", "shared_shape", "sharing_pays"]

SHARED_LEAVES = ("prefix", "prefix_lengths")


def sharing_pays(question: EncodedQuestion) -> bool:
    """Whether reading the prompt once, apart from its answers, is cheaper.

    A forward pass over the prompt, once more where the backward pass rebuilds its layers, is saved
    for all answers but one. Answers read the prompt's last token again, in four passes: forward,
    rebuilt, backward, and the products that turn it into gradients.
    """
    prompts = {answer.token_ids[: -answer.num_targets] for answer in question.answers}
    if len(prompts) > 1:  # truncated by different amounts
        return False
    num_answers, length, _ = shared_shape(question)
    return 2 * (num_answers - 1) * length > 4 * num_answers


def shared_shape(question: EncodedQuestion) -> tuple[int, int, int]:
    """`(K, P, A)`: answers, tokens of the prefix, longest answer.

    The prompt's last token is the first that each answer reads, for its first target.
    """
    first = question.answers[0]
    counts = [answer.num_targets for answer in question.answers]
    return len(counts), len(first.token_ids) - first.num_targets - 1, max(counts)


def no_targets(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """What a `BatchPlan` says of its answers' targets, `[Q, K, A]`, before any is written."""
    return {"targets": np.zeros(shape, np.int32), "target_mask": np.zeros(shape, np.float32)}


def pad_shared(
    encoded: Sequence[EncodedQuestion], indices: np.ndarray, shape: tuple[int, int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`(groups, mask)` of a `BatchPlan` whose questions share their prompts."""
    num_answers, length, num_targets = shape
    rows = (len(indices), num_answers)
    groups = {
        "prefix": np.zeros((len(indices), length), np.int32),
        "prefix_lengths": np.zeros(len(indices), np.int32),
        "token_ids": np.zeros((*rows, num_targets), np.int32),
        **no_targets((*rows, num_targets)),
    }
    mask = np.zeros(rows, bool)
    for row, index in enumerate(indices):
        if index >= 0:
            _write(groups, row, encoded[index])
            mask[row, : len(encoded[index].answers)] = True
    return groups, mask


def _write(groups: dict[str, np.ndarray], row: int, question: EncodedQuestion) -> None:
    _, length, _ = shared_shape(question)
    groups["prefix"][row, :length] = question.answers[0].token_ids[:length]
    groups["prefix_lengths"][row] = length
    for column, answer in enumerate(question.answers):
        cell, count = (row, column), answer.num_targets
        groups["token_ids"][cell][:count] = answer.token_ids[-count - 1 : -1]
        groups["targets"][cell][:count] = answer.token_ids[-count:]
        groups["target_mask"][cell][:count] = 1
