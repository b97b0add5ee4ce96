"""Questions as one row each: the prompt once, then every answer as a branch of it."""

from collections.abc import Sequence

import numpy as np

from .encoding import EncodedQuestion

__all__ = ["no_targets", "pad_shared", "shared_shape", "sharing_pays"]

PADDING = -1  # a branch that nothing else sees


def sharing_pays(question: EncodedQuestion) -> bool:
    """Whether one row with branches is cheaper than a row for every answer.

    Both need a forward pass, once more when the backward pass rebuilds its layers, a backward pass
    for every answer, and the products that turn it into gradients: four passes over all tokens of
    K sequences, or, over the tokens of the row, 2 forward and 2 K backward. A row pays while its
    prompt is long beside its answers, which every backward pass runs through.
    """
    prompts = {answer.token_ids[: -answer.num_targets] for answer in question.answers}
    if len(question.answers) == 1 or len(prompts) > 1:  # truncated by different amounts
        return False
    num_answers, length, _ = shared_shape(question)
    apart = 4 * sum(len(answer.token_ids) - 1 for answer in question.answers)
    return (2 + 2 * num_answers) * length < apart


def shared_shape(question: EncodedQuestion) -> tuple[int, int, int]:
    """`(K, T, A)`: answers, tokens the model reads, longest answer."""
    first = question.answers[0]
    counts = [answer.num_targets for answer in question.answers]
    prompt = len(first.token_ids) - first.num_targets
    return len(counts), prompt + sum(counts) - len(counts), max(counts)


def no_targets(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """What a `BatchPlan` says of its answers' tokens, `[Q, K, A]`, before any is written."""
    return {
        "positions": np.zeros(shape, np.int32),
        "targets": np.zeros(shape, np.int32),
        "target_mask": np.zeros(shape, np.float32),
    }


def pad_shared(
    encoded: Sequence[EncodedQuestion], indices: np.ndarray, shape: tuple[int, int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`(groups, mask)` of a `BatchPlan` whose questions share their prompts."""
    num_answers, length, num_targets = shape
    rows = (len(indices), num_answers)
    groups = {
        "token_ids": np.zeros((len(indices), length), np.int32),
        "branches": np.full((len(indices), length), PADDING, np.int32),
        **no_targets((*rows, num_targets)),
    }
    mask = np.zeros(rows, bool)
    for row, index in enumerate(indices):
        if index >= 0:
            _write(groups, row, encoded[index])
            mask[row, : len(encoded[index].answers)] = True
    return groups, mask


def _write(groups: dict[str, np.ndarray], row: int, question: EncodedQuestion) -> None:
    ids, branches = groups["token_ids"][row], groups["branches"][row]
    first = question.answers[0]
    prompt = first.token_ids[: -first.num_targets]
    ids[: len(prompt)], branches[: len(prompt)] = prompt, 0
    end = len(prompt)
    for column, answer in enumerate(question.answers):
        targets, count = answer.token_ids[-answer.num_targets :], answer.num_targets
        read = slice(end, end + count - 1)  # the last is only predicted
        ids[read], branches[read] = targets[:-1], column + 1
        positions = groups["positions"][row, column]
        positions[0], positions[1:count] = len(prompt) - 1, np.arange(read.start, read.stop)
        groups["targets"][row, column, :count] = targets
        groups["target_mask"][row, column, :count] = 1
        end = read.stop
