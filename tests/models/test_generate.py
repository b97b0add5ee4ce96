"""Generation: the cached extension equals the cache-free forward; sampling; where it ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import models
from fishjax.models import Sampling

from . import hub

# windows, local rotations, learned positions, caps, grouped queries, parallel blocks
ARCHITECTURES = ("gpt2", "gpt_neox", "llama_llama3", "mistral", "qwen2_window", "gemma2", "gemma3")


class Letters:
    """One token a letter."""

    bos_id, eos_id, vocab_size = 1, 2, 40

    def encode(self, text, *, bos):
        return [1] * bos + [ord(c) - ord("a") + 3 for c in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + int(i) - 3) for i in ids if int(i) > 2)


def loaded(tmp_path, name):
    model = models.load(hub.write(tmp_path / "m", name))
    return dataclasses.replace(model, tokenizer=Letters())


def prompts_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 40, length).tolist() for length in lengths]


def by_hand(model, prompt, count):
    """Greedy tokens of the cache-free forward, and their log-likelihoods."""
    length = len(prompt) + count
    apply_fn = jax.jit(model.apply_fn)
    ids, log_likelihoods = list(prompt), []
    for _ in range(count):
        padded = np.zeros((1, length), int)
        padded[0, : len(ids)] = ids
        log_probs = jax.nn.log_softmax(apply_fn(model.params, padded)[0, len(ids) - 1])
        ids.append(int(jnp.argmax(log_probs)))
        log_likelihoods.append(float(log_probs[ids[-1]]))
    return ids[len(prompt) :], log_likelihoods


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_equals_the_cache_free_forward(tmp_path, name):
    """Ragged prompts in one batch, past the sliding window and the original length."""
    model = loaded(tmp_path, name)
    prompts = prompts_of((3, 14, 7))
    found = models.generate(model, prompts, Sampling(max_tokens=10), eos_ids=(10**6,))
    for prompt, one in zip(prompts, found, strict=True):
        ids, log_likelihoods = by_hand(model, prompt, 10)
        assert list(one.token_ids) == ids
        np.testing.assert_allclose(one.log_likelihoods, log_likelihoods, rtol=1e-4, atol=1e-4)
        assert (one.ended, one.text) == ("length", Letters().decode(ids))


def test_extension_in_pieces_is_one_forward(tmp_path):
    model = loaded(tmp_path, "gemma3")
    tokens = np.asarray(prompts_of((20, 20)))
    mask = np.arange(20) >= np.asarray([[0], [3]])
    whole = model.apply_fn(model.params, tokens, None, mask)
    extend = jax.jit(models.decoder_extend_fn(model.config))
    cache = models.empty_cache(model.config, 2, 24)
    for start, stop in ((0, 7), (7, 8), (8, 20)):
        logits, cache = extend(model.params, tokens[:, start:stop], mask[:, start:stop], cache)
        np.testing.assert_allclose(logits, whole[:, stop - 1], rtol=1e-4, atol=1e-4)
    assert int(cache.length) == 20


def test_sampling_follows_the_softened_distribution(tmp_path):
    """First tokens of 3,000 rows: within five standard errors of each probability."""
    model = loaded(tmp_path, "llama")
    prompt, rows = prompts_of((5,))[0], 3000
    logits = model.apply_fn(model.params, np.asarray([prompt]))[0, -1]
    temperature, top_p = 1.7, 0.6
    keys = jax.random.split(jax.random.key(3), rows)
    found = models.generate(
        model, [prompt] * rows, Sampling(1, temperature, top_p), keys=keys, eos_ids=(10**6,)
    )
    drawn = np.bincount([one.token_ids[0] for one in found], minlength=40) / rows
    p = np.asarray(jax.nn.softmax(logits / temperature), np.float64)
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    expected = np.zeros(40)
    expected[kept] = p[kept] / p[kept].sum()
    assert 3 < len(kept) < 40
    errors = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(drawn - expected) <= 5 * errors)


def test_a_rows_draws_do_not_depend_on_its_batch(tmp_path):
    model = loaded(tmp_path, "llama")
    prompts = prompts_of((5, 9, 3))
    keys = jax.random.split(jax.random.key(0), 3)
    sampling = Sampling(8, temperature=1.0)
    together = models.generate(model, prompts, sampling, keys=keys)
    alone = [
        models.generate(model, [p], sampling, keys=keys[i : i + 1])[0]
        for i, p in enumerate(prompts)
    ]
    assert [t.token_ids for t in together] == [a.token_ids for a in alone]


def test_where_a_continuation_ends(tmp_path):
    model = loaded(tmp_path, "llama")
    (prompt,) = prompts_of((4,))
    (free,) = models.generate(model, [prompt], Sampling(12), eos_ids=(10**6,))
    fourth = free.token_ids[3]
    first = free.token_ids.index(fourth)
    (ended,) = models.generate(model, [prompt], Sampling(12), eos_ids=(fourth,))
    assert (ended.ended, ended.token_ids) == ("eos", free.token_ids[: first + 1])
    assert ended.text == Letters().decode(free.token_ids[:first])
    stop = free.text[5:7]
    (stopped,) = models.generate(model, [prompt], Sampling(12, stop=(stop,)), eos_ids=(10**6,))
    assert (stopped.ended, stopped.text) == ("stop", free.text[: free.text.find(stop)])
    room = model.config.context_length
    (full,) = models.generate(model, prompts_of((room - 3,)), Sampling(12), eos_ids=(10**6,))
    assert (full.ended, len(full.token_ids)) == ("length", 3)
    assert models.generate(model, [], Sampling()) == []


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_a_row_ends_at_its_own_end_of_the_context(tmp_path, name):
    """A long prompt beside a short one takes nothing from it, learned positions or not."""
    model = loaded(tmp_path, name)
    prompts = prompts_of((4, model.config.context_length - 3))
    together = models.generate(model, prompts, Sampling(12), eos_ids=(10**6,))
    assert [len(one.token_ids) for one in together] == [12, 3]
    (alone,) = models.generate(model, prompts[:1], Sampling(12), eos_ids=(10**6,))
    assert together[0].token_ids == alone.token_ids


def test_ids_that_fill_up_the_vocabulary_have_no_text(tmp_path):
    """Pythia's and Qwen's heads are wider than their tokenizers."""

    class Narrow(Letters):
        vocab_size = 20

        def decode(self, ids):
            assert all(index < 20 for index in ids)
            return super().decode(ids)

    model = dataclasses.replace(loaded(tmp_path, "llama"), tokenizer=Narrow())
    sampling = Sampling(12, temperature=2.0, stop=("never",))
    keys = jax.random.split(jax.random.key(0), 1)
    (found,) = models.generate(model, [[5, 8]], sampling, keys=keys, eos_ids=(10**6,))
    kept = [index for index in found.token_ids if index < 20]
    assert 0 < len(kept) < 12
    assert found.text == Letters().decode(kept)


def test_rows_that_are_not_finite_end_alone(tmp_path):
    model = loaded(tmp_path, "llama")
    (free,) = models.generate(model, [[5, 8, 9]], Sampling(3), eos_ids=(10**6,))
    bad = next(i for i in range(10, 40) if i not in free.token_ids)
    params = dict(model.params, embedding=model.params["embedding"].at[bad].set(jnp.nan))
    broken = dataclasses.replace(model, params=params, config=model.config)
    # tied: the NaN row of the head would reach all; an untied copy keeps it in the input
    prompts = [[5, bad, 9], [5, 8, 9]]
    found = models.generate(broken, prompts, Sampling(3))
    assert [one.ended for one in found] == ["not finite", "not finite"]
    untied = dataclasses.replace(model.config, tied=False)
    params = dict(params, head=model.params["embedding"].T)
    broken = dataclasses.replace(broken, params=params, config=untied)
    found = models.generate(broken, prompts, Sampling(3), eos_ids=(10**6,))
    assert [one.ended for one in found] == ["not finite", "length"]
    assert found[0].token_ids == ()


@pytest.mark.parametrize(
    ("prompts", "sampling", "message"),
    [
        ([[]], Sampling(), "a prompt is empty"),
        ([[3] * 40], Sampling(), "a prompt has 40 tokens and the context 32"),
        ([[3]], Sampling(temperature=1.0), "expected 1 keys, one a prompt"),
        ([[3]], Sampling(temperature=-1.0), "temperature is -1.0"),
        ([[3]], Sampling(temperature=float("nan")), "temperature is nan"),
        ([[3]], Sampling(top_p=0.0), "top_p is 0.0"),
        ([[3]], Sampling(max_tokens=0), "max_tokens is 0"),
        ([[3]], Sampling(stop=("",)), "a stop text is empty"),
    ],
)
def test_refusals(tmp_path, prompts, sampling, message):
    with pytest.raises(ValueError, match=message):
        models.generate(loaded(tmp_path, "llama"), prompts, sampling)
