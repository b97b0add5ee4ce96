"""Answers that share inputs: the same Gram, and the shared part of the program runs once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture, gradients
from fishjax.gradients.reference import dense_grouped_gram
from fishjax.models import DecoderConfig, decoder_apply_fn, init_params

Q, K, P, A = 2, 3, 7, 3
CONFIG = DecoderConfig(
    vocab_size=11, width=8, hidden_width=12, num_layers=2, num_heads=2, num_kv_heads=1,
    context_length=P + A, remat=True, dtype="float64",
)  # fmt: skip
# its parameters meet prefix and continuation in other ways: tables, biases, shifted norms
LIKE_GPT2 = dataclasses.replace(
    CONFIG, positions="learned", norm="layer", mlp="plain", activation="gelu_tanh", tied=True,
    projection_biases=True, output_bias=True, mlp_biases=True, num_kv_heads=2,
)  # fmt: skip
SHARED = ("prefix", "prefix_lengths")


def function_of(config):
    apply_fn = decoder_apply_fn(config)

    def log_likelihood(params, rows):
        prefix = {name: rows[name] for name in SHARED}
        log_probs = jax.nn.log_softmax(apply_fn(params, rows["token_ids"], **prefix))
        return jnp.take_along_axis(log_probs, rows["targets"][..., None], -1)[..., 0].sum(-1)

    return log_likelihood


log_likelihood = function_of(CONFIG)


def params_of(config):
    params = init_params(config, jax.random.key(0))
    return jax.tree.map(lambda x: x.astype(jnp.float64), params)


@pytest.fixture(scope="module")
def problem():
    """(params, groups, mask) in float64; the second question misses an answer."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        params = params_of(CONFIG)
        groups = {
            "prefix": jnp.asarray(rng.integers(0, 11, (Q, P))),
            "prefix_lengths": jnp.array([P, 4]),
            "token_ids": jnp.asarray(rng.integers(0, 11, (Q, K, A))),
            "targets": jnp.asarray(rng.integers(0, 11, (Q, K, A))),
        }
    return params, groups, jnp.array([[True] * K, [True, True, False]])


def repeated(groups):
    return {n: jnp.repeat(x[:, None], K, 1) if n in SHARED else x for n, x in groups.items()}


@pytest.mark.parametrize("config", [CONFIG, LIKE_GPT2], ids=["llama", "gpt2"])
def test_gram_is_that_of_separate_rows(problem, config):
    _, groups, mask = problem
    with jax.enable_x64(True):
        params, fn = params_of(config), function_of(config)
        run = jax.jit(gradients.grouped_gram(fn, shared=SHARED))
        outputs, gram = run(params, groups, mask)
        expected, dense = jax.jit(dense_grouped_gram(fn))(params, repeated(groups), mask)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    assert set(gram.by_parameter) == set(dense.by_parameter)
    for path, one in gram.by_parameter.items():
        found = np.asarray(one).reshape(-1, Q, K, K).sum(0)
        atol = 1e-12 * np.abs(dense.by_parameter[path]).max()
        atol += 1e-20 * np.abs(dense.total).max()  # a bias of keys changes nothing
        np.testing.assert_allclose(
            found, dense.by_parameter[path], rtol=1e-9, atol=atol, err_msg=path
        )


def test_a_shared_part_runs_once(problem):
    """Rows of the forward products over the prefix: Q P of them, not Q K P."""
    params, groups, mask = problem

    def products(shared, groups):
        run = gradients.grouped_gram(log_likelihood, shared=shared)
        text = jax.jit(run).lower(params, groups, mask).as_text()
        width = CONFIG.hidden_width
        return text.count(f"tensor<{Q}x{P}x{width}x"), text.count(f"tensor<{Q}x{K}x{P}x{width}x")

    with jax.enable_x64(True):
        once, _ = products(SHARED, groups)
        never, _ = products(None, repeated(groups))
    assert once > 0
    assert never == 0


def test_uses_in_one_block_are_finished_there(problem):
    """Each layer's weights meet prefix and continuation; no factor outlives its layer."""
    params, groups, _ = problem
    rows = {n: x.reshape(Q * K, *x.shape[2:]) for n, x in repeated(groups).items()}
    with jax.enable_x64(True):
        report = capture.uses(log_likelihood, params, rows)
    row = report["layers/mlp/up"]
    assert row.kinds == ("dense", "dense")
    assert "in one block" in row.reason
    assert not report.fallbacks


@pytest.mark.parametrize(
    ("shared", "change", "message"),
    [
        ("prefix*", lambda g: {**g, "prefix": g["prefix"][:1]}, "'prefix' of groups has shape"),
        ("nothing", lambda g: g, "no parameter matches"),
        (lambda path: True, lambda g: g, "all leaves"),
    ],
)
def test_wrong_shared_leaves_are_refused(problem, shared, change, message):
    params, groups, mask = problem
    run = gradients.grouped_gram(log_likelihood, shared=shared)
    with jax.enable_x64(True), pytest.raises(ValueError, match=message):
        run(params, change(groups), mask)


def test_eager_calls_check_that_examples_do_not_mix():
    def mixing(params, rows):
        return jnp.sin(rows["a"] * params) + rows["b"] * jnp.mean(rows["a"] * params)

    groups = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2)}
    run = gradients.grouped_gram(mixing, shared="b")
    with pytest.raises(capture.MixedExamplesError):
        run(jnp.array(2.0), groups, jnp.ones((2, 3), bool))
