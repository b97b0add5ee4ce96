"""Rows of a prefix and several continuations give the logits of separate sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax.models import DecoderConfig, decoder_apply_fn, init_params, load

from .hub import fixture, write

PREFIX, LENGTHS = 9, (3, 1, 4)
# windows shorter than the row, learned positions, scaled rotations, two kinds of layers
NAMES = ("gemma3", "gpt2", "gpt_neox", "llama_yarn", "mistral", "qwen3_window")


def rows(vocab_size):
    """Two packed rows with padding, and their sequences one by one."""
    rng = np.random.default_rng(0)
    packed, branches, apart = [], [], []
    for _ in range(2):
        prefix = rng.integers(3, vocab_size, PREFIX)
        parts = [rng.integers(3, vocab_size, n) for n in LENGTHS]
        packed.append(np.concatenate([prefix, *parts, [0, 0]]))
        numbers = [np.full(n, k + 1) for k, n in enumerate(LENGTHS)]
        branches.append(np.concatenate([np.zeros(PREFIX, int), *numbers, [-1, -1]]))
        apart.append([np.concatenate([prefix, part]) for part in parts])
    return np.stack(packed), np.stack(branches), apart


def continuations(logits):
    """`[T, V]` logits of a packed row as one array for each continuation."""
    ends = PREFIX + np.cumsum(LENGTHS)
    return [logits[end - n : end] for end, n in zip(ends, LENGTHS, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_branches_equal_separate_sequences(name, tmp_path):
    model = load(write(tmp_path / name, name))
    packed, branches, apart = rows(len(fixture(name)["logits"][0, 0]))
    apply_fn = jax.jit(model.apply_fn)
    logits = jax.jit(lambda p, ids, b: model.apply_fn(p, ids, branches=b))(
        model.params, packed, branches
    )
    width = PREFIX + max(LENGTHS)
    for row, sequences in zip(np.asarray(logits), apart, strict=True):
        padded = np.stack([np.pad(s, (0, width - len(s))) for s in sequences])
        expected = np.asarray(apply_fn(model.params, padded))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(row[:PREFIX], expected[0, :PREFIX], atol=1e-5 * scale)
        for found, one, n in zip(continuations(row), expected, LENGTHS, strict=True):
            np.testing.assert_allclose(found, one[PREFIX : PREFIX + n], atol=1e-5 * scale)


CONFIG = DecoderConfig(
    vocab_size=8, width=8, hidden_width=8, num_layers=1, num_heads=2, num_kv_heads=1,
    context_length=6,
)  # fmt: skip


def test_rows_of_branches_may_be_longer_than_the_context():
    params, apply_fn = init_params(CONFIG, jax.random.key(0)), decoder_apply_fn(CONFIG)
    ids, branches = jnp.array([[1, 2, 3, 4, 5, 6, 7]]), jnp.array([[0, 0, 0, 0, 1, 2, 3]])
    logits = apply_fn(params, ids, branches=branches)
    expected = apply_fn(params, jnp.array([[1, 2, 3, 4, 7]]))
    np.testing.assert_allclose(logits[0, -1], expected[0, -1], rtol=1e-5)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"branches": np.zeros((1, 3), int)}, "expected integers of shape"),
        ({"branches": np.zeros((1, 4))}, "expected integers of shape"),
        ({"branches": np.zeros((1, 4), int), "mask": np.ones((1, 4), bool)}, "one of them"),
    ],
)
def test_bad_branches_are_refused(extra, message):
    params, apply_fn = init_params(CONFIG, jax.random.key(0)), decoder_apply_fn(CONFIG)
    with pytest.raises(ValueError, match=message):
        apply_fn(params, np.ones((1, 4), int), **extra)
