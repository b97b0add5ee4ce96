"""Continuations of a prefix give the logits of whole sequences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax.models import DecoderConfig, decoder_apply_fn, init_params, load

from .hub import fixture, write

LENGTHS, MORE = (9, 4, 12), 6
# windows shorter than the prefix, learned positions, scaled rotations, two kinds of layers
NAMES = ("gemma3", "gpt2", "gpt_neox", "llama_yarn", "mistral", "qwen3_window")


@pytest.mark.parametrize("name", NAMES)
def test_continuations_equal_whole_sequences(name, tmp_path):
    model = load(write(tmp_path / name, name))
    vocab_size, rng = len(fixture(name)["logits"][0, 0]), np.random.default_rng(0)
    prefix = rng.integers(3, vocab_size, (len(LENGTHS), max(LENGTHS)))  # padding is noise
    rest = rng.integers(3, vocab_size, (len(LENGTHS), MORE))
    logits = jax.jit(model.apply_fn)(
        model.params, rest, prefix=prefix, prefix_lengths=np.array(LENGTHS)
    )
    whole = np.zeros((len(LENGTHS), max(LENGTHS) + MORE), int)
    for row, n in enumerate(LENGTHS):
        whole[row, : n + MORE] = np.concatenate([prefix[row, :n], rest[row]])
    expected = np.asarray(jax.jit(model.apply_fn)(model.params, whole))
    for found, one, n in zip(np.asarray(logits), expected, LENGTHS, strict=True):
        np.testing.assert_allclose(found, one[n : n + MORE], atol=1e-5 * np.abs(expected).max())


CONFIG = DecoderConfig(
    vocab_size=8, width=8, hidden_width=8, num_layers=1, num_heads=2, num_kv_heads=1,
    context_length=6,
)  # fmt: skip


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_beyond_the_context_there_are_no_logits_and_no_harm(positions):
    """Padding of a batch's longest answer may stand there."""
    config = dataclasses.replace(CONFIG, positions=positions)
    params, apply_fn = init_params(config, jax.random.key(0)), decoder_apply_fn(config)
    ids = jnp.array([[1, 2, 3, 4, 5, 6, 7, 1]])

    def first(params):
        prefix = {"prefix": ids[:, :5], "prefix_lengths": jnp.array([5])}
        logits = apply_fn(params, ids[:, 5:], **prefix)
        kept = jnp.where(jnp.array([True, False, False])[:, None], logits[0], 0)
        return jnp.sum(jax.nn.log_softmax(kept)[:, 3]), logits

    (_, logits), grads = jax.value_and_grad(first, has_aux=True)(params)
    np.testing.assert_allclose(logits[0, 0], apply_fn(params, ids[:, :6])[0, -1], rtol=1e-5)
    assert np.isnan(logits[0, 1:]).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prefix": np.zeros((1, 3), int)}, "prefix_lengths is missing"),
        ({"prefix_lengths": np.ones(1, int)}, "prefix is missing"),
        ({"prefix": np.zeros((2, 3), int), "prefix_lengths": np.ones(1, int)}, r"\[1, P\]"),
        ({"prefix": np.zeros((1, 3)), "prefix_lengths": np.ones(1, int)}, "expected integers"),
        ({"prefix": np.zeros((1, 3), int), "prefix_lengths": np.ones(2, int)}, r"\[1\]"),
        ({"prefix": np.zeros((1, 7), int), "prefix_lengths": np.ones(1, int)}, "context of 6"),
        (
            {
                "prefix": np.zeros((1, 3), int),
                "prefix_lengths": np.ones(1, int),
                "mask": np.ones((1, 4), bool),
            },
            "a prefix and mask",
        ),
    ],
)
def test_bad_prefixes_are_refused(given, message):
    params = init_params(CONFIG, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        decoder_apply_fn(CONFIG)(params, jnp.zeros((1, 4), int), **given)
