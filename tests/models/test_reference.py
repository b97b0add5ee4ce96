"""The two real story models against numbers from a float64 NumPy forward (REFERENCE.json)."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import models

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=["stories260K", "stories3M_q80"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def reference(shared_data, name):
    return json.loads((shared_data / "models" / "REFERENCE.json").read_text())[name]


@pytest.fixture(scope="module")
def model(shared_data, name):
    return models.load(shared_data / "models" / name)


@pytest.fixture(scope="module")
def apply_fn(model):
    return jax.jit(model.apply_fn)


def test_parameter_count_and_text(model, reference):
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == reference["n_params"]
    assert model.tokenizer.encode(reference["prompt"], bos=True) == reference["prompt_ids"]
    # The reference keeps the space after BOS, which llama2.c drops.
    text = model.tokenizer.decode(reference["greedy_ids"])
    assert " " + text == reference["greedy_text"]


def test_greedy_ids_and_top_logits(model, apply_fn, reference):
    prompt, greedy = len(reference["prompt_ids"]), reference["greedy_ids"]
    padded = jnp.zeros((1, 256), jnp.int32).at[0, : len(greedy)].set(jnp.array(greedy))
    logits = np.asarray(apply_fn(model.params, padded))[0]
    # Given the same prefix every next id is the same, so by induction the continuation is.
    assert logits[prompt - 1 : len(greedy) - 1].argmax(-1).tolist() == greedy[prompt:]
    for index, value in reference["last_logits_top5"]:
        assert abs(logits[prompt - 1, index] - value) < 1e-3
    top = np.argsort(-logits[prompt - 1])[:5]
    assert top.tolist() == [index for index, _ in reference["last_logits_top5"]]


def test_negative_log_likelihood_of_stories(model, apply_fn, reference, shared_data):
    text = gzip.decompress((shared_data / "tinystories" / "valid_1910.txt.gz").read_bytes())
    stories = [s.strip() for s in text.decode().split("<|endoftext|>") if s.strip()][:20]
    total = count = 0
    for story in stories:
        ids = model.tokenizer.encode(story, bos=True)[:256]
        padded = jnp.zeros((1, 256), jnp.int32).at[0, : len(ids)].set(jnp.array(ids))
        log_probs = np.asarray(jax.nn.log_softmax(apply_fn(model.params, padded)))[0]
        total -= log_probs[np.arange(len(ids) - 1), ids[1:]].sum(dtype=np.float64)
        count += len(ids) - 1
    expected = reference["valid_first20"]
    assert count == expected["tokens_scored"]
    assert abs(total / count - expected["mean_nll_nats_per_token"]) < 5e-5
