"""Ragged questions as padded batches of few shapes.

Every new shape compiles, every padded token is wasted. A *cell* holds the questions of one
shape (answers K, read tokens T, answer tokens A). Starting from small cells, the two whose union
wastes least are merged, until there are at most `MAX_SHAPES` and one more merge would push the
waste over `ACCEPTED_WASTE`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .encoding import EncodedAnswer, EncodedQuestion
from .questions import TaskError
from .shared_prompts import no_targets, pad_shared, shared_shape, sharing_pays

__all__ = ["BatchPlan", "plan_batches"]

MAX_SHAPES = 8
ACCEPTED_WASTE = 0.15
CELL_STEPS = 16  # cells per doubling of T: at most 6 % waste before any merge


_ShapeOf = Callable[[EncodedQuestion], tuple[int, int, int]]
_Pad = Callable[..., tuple[dict[str, np.ndarray], np.ndarray]]


class BatchPlan(NamedTuple):
    """One batch: Q questions of K answers, padded.

    Attributes:
      indices: `[Q]` index of each question in the encoded list, -1 for a dummy.
      groups: `token_ids` [Q, K, T] int32, what the model reads, padded with 0 on the right;
        `positions` [Q, K, A] int32, the positions whose next token is a target; `targets` [Q, K, A]
        int32; `target_mask` [Q, K, A] float32, 1 for a target and 0 for padding. Where answers
        share their prompt, it is in `prefix` [Q, P] int32, `prefix_lengths` [Q] of it, `token_ids`
        [Q, K, A] is what follows, and the target behind each of these is next; no `positions`.
      mask: `[Q, K]` bool, true for an answer and false for padding.
    """

    indices: np.ndarray
    groups: dict[str, np.ndarray]
    mask: np.ndarray


def plan_batches(
    encoded: Sequence[EncodedQuestion],
    *,
    batch_tokens: int,
    multiple: int = 1,
    share_prompts: bool = False,
) -> list[BatchPlan]:
    """Groups questions of similar shape; depends on nothing but its arguments.

    A shape's number of questions Q is the largest with Q K T <= `batch_tokens` (at least 1; T is
    what one answer and its prompt have to read),
    lowered so that its batches are evenly full, then raised to a multiple of `multiple`; the last
    ones may hold dummy questions.
    Larger shapes come first, questions keep their order within a shape; questions whose answers
    share a prompt come before the others.

    Args:
      encoded: questions, in file order.
      batch_tokens: read tokens of one batch, padding included.
      multiple: devices that share a batch.
      share_prompts: whether a question whose prompt is worth it becomes a prefix with its answers
        as continuations; for a model that takes a `prefix`.

    Returns:
      Batches in which every question occurs once.

    Raises:
      TaskError: `batch_tokens` is not a positive integer.
    """
    if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int) or batch_tokens < 1:
        raise TaskError(f"batch_tokens is {batch_tokens!r}: expected a positive integer")
    shared = np.array([share_prompts and sharing_pays(question) for question in encoded], bool)
    families: list[tuple[np.ndarray, _ShapeOf, _Pad]] = [
        (np.flatnonzero(shared), shared_shape, pad_shared),
        (np.flatnonzero(~shared), _shape, _pad),
    ]
    batches = []
    for members, shape_of, pad in families:
        shapes = np.array([shape_of(encoded[i]) for i in members]).reshape(-1, 3)
        for cell in _merged_cells(shapes) if len(members) else ():
            shape = tuple(int(size) for size in shapes[cell].max(axis=0))
            read = shape[1] + shape[2] if pad is pad_shared else shape[1]
            most = max(1, batch_tokens // (shape[0] * read))
            for indices in _split(members[cell], most, multiple):
                batches.append(BatchPlan(indices, *pad(encoded, indices, shape)))
    return batches


def _split(members: np.ndarray, most: int, multiple: int) -> list[np.ndarray]:
    """Evenly full batches of at most `most` questions, raised to a multiple, -1 for dummies."""
    num_batches = -(-len(members) // most)
    size = -(-len(members) // num_batches)
    size = -(-size // multiple) * multiple
    batches = []
    for start in range(0, len(members), size):
        indices = np.full(size, -1)
        chosen = members[start : start + size]
        indices[: len(chosen)] = chosen
        batches.append(indices)
    return batches


def _shape(question: EncodedQuestion) -> tuple[int, int, int]:
    return (
        len(question.answers),
        max(len(answer.token_ids) - 1 for answer in question.answers),
        max(answer.num_targets for answer in question.answers),
    )


def _merged_cells(shapes: np.ndarray) -> list[np.ndarray]:
    """Indices of the questions of each final shape, larger shapes first."""
    coarse = shapes.copy()
    coarse[:, 1] = np.ceil(CELL_STEPS * np.log2(shapes[:, 1])).astype(int)
    _, cell_of = np.unique(coarse[:, :2], axis=0, return_inverse=True)
    cell_of = cell_of.reshape(-1)
    sizes = np.array([shapes[cell_of == cell].max(axis=0) for cell in range(cell_of.max() + 1)])
    counts = np.bincount(cell_of)
    real = float(np.sum(_cost(shapes, 1)))
    while len(sizes) > 1:
        union = np.maximum(sizes[:, None], sizes[None])
        own = _cost(sizes, counts)
        added = _cost(union, counts[:, None] + counts[None]) - own[:, None] - own[None]
        added[np.tril_indices(len(sizes))] = np.inf
        keep, drop = np.unravel_index(np.argmin(added), added.shape)
        waste = 1 - real / (own.sum() + added[keep, drop])
        if len(sizes) <= MAX_SHAPES and waste > ACCEPTED_WASTE:
            break
        sizes[keep] = union[keep, drop]
        counts[keep] += counts[drop]
        sizes, counts = np.delete(sizes, drop, axis=0), np.delete(counts, drop)
        cell_of[cell_of == drop] = keep
        cell_of[cell_of > drop] -= 1
    order = sorted(range(len(sizes)), key=lambda cell: tuple(-sizes[cell]))
    return [np.flatnonzero(cell_of == cell) for cell in order]


def _cost(sizes: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """Tokens read plus tokens scored, K (T + A), of so many questions, as floats."""
    return 1.0 * counts * sizes[..., 0] * (sizes[..., 1] + sizes[..., 2])


def _pad(
    encoded: Sequence[EncodedQuestion], indices: np.ndarray, shape: tuple[int, int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    num_answers, length, num_targets = shape
    rows = (len(indices), num_answers)
    groups = {
        "token_ids": np.zeros((*rows, length), np.int32),
        "positions": np.zeros((*rows, num_targets), np.int32),
        **no_targets((*rows, num_targets)),
    }
    mask = np.zeros(rows, bool)
    for row, index in enumerate(indices):
        for column, answer in enumerate(encoded[index].answers if index >= 0 else ()):
            _write(groups, (row, column), answer)
            mask[row, column] = True
    return groups, mask


def _write(groups: dict[str, np.ndarray], cell: tuple[int, int], answer: EncodedAnswer) -> None:
    count, read = answer.num_targets, len(answer.token_ids) - 1
    groups["token_ids"][cell][:read] = answer.token_ids[:-1]
    groups["positions"][cell][:count] = np.arange(read - count, read)
    groups["targets"][cell][:count] = answer.token_ids[-count:]
    groups["target_mask"][cell][:count] = 1
