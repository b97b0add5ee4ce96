"""The decoder against a float64 NumPy forward that shares no code with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax.models import DecoderConfig, decoder_apply_fn, init_params
from fishjax.models.layers import attend
from fishjax.trees import flatten_with_paths

GOOD = {
    "vocab_size": 8, "width": 8, "hidden_width": 8, "num_layers": 1, "num_heads": 2,
    "num_kv_heads": 1, "context_length": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def token_ids(config):
    return jax.random.randint(jax.random.key(1), (3, 9), 0, config.vocab_size)


def test_logits_equal_numpy(apply_fn, params, token_ids, oracle):
    logits = apply_fn(params, token_ids)
    expected = np.stack([oracle.forward(params, ids) for ids in token_ids])
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())


def test_logits_equal_numpy_in_float64(config, params, token_ids, oracle):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), params)
        apply_fn = jax.jit(decoder_apply_fn(dataclasses.replace(config, dtype="float64")))
        logits = apply_fn(wide, jnp.asarray(token_ids))
        expected = np.stack([oracle.forward(params, ids) for ids in token_ids])
        assert logits.dtype == jnp.float64
        np.testing.assert_allclose(logits, expected, atol=1e-11)


def test_float64_without_x64_is_refused(config, params, token_ids):
    apply_fn = decoder_apply_fn(dataclasses.replace(config, dtype="float64"))
    with pytest.raises(ValueError, match="jax_enable_x64"):
        apply_fn(params, token_ids)


def test_remat_changes_neither_value_nor_gradient(config, params, token_ids):
    def loss(apply_fn):
        return lambda p: jnp.sum(jax.nn.log_softmax(apply_fn(p, token_ids))[..., 2])

    plain = decoder_apply_fn(config)
    remat = decoder_apply_fn(dataclasses.replace(config, remat=True))
    value, gradient = jax.jit(jax.value_and_grad(loss(plain)))(params)
    value_remat, gradient_remat = jax.jit(jax.value_and_grad(loss(remat)))(params)
    assert "policy=None" in str(jax.make_jaxpr(remat)(params, token_ids))  # jax.checkpoint
    np.testing.assert_allclose(value, value_remat, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_remat), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_positions_select_rows_of_the_full_logits(apply_fn, params, token_ids):
    positions = jnp.array([[0, 8, 3, 3], [7, 1, 0, 2], [5, 5, 5, 4]])
    expected = np.take_along_axis(apply_fn(params, token_ids), positions[..., None], axis=1)
    logits = apply_fn(params, token_ids, positions)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_neither_padding_nor_other_examples_change_logits(apply_fn, params, token_ids):
    padded = jnp.pad(token_ids, ((0, 0), (0, 3)))
    alone = np.concatenate([apply_fn(params, padded[n : n + 1])[:, :9] for n in range(3)])
    np.testing.assert_allclose(apply_fn(params, token_ids), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_logits_are_float32(config, apply_fn, params, token_ids, dtype):
    half = jax.jit(decoder_apply_fn(dataclasses.replace(config, dtype=dtype)))
    expected, logits = apply_fn(params, token_ids), half(params, token_ids)
    assert logits.dtype == jnp.float32
    # 8 (11) bits of mantissa, a few roundings per layer: the error is a few per cent at most.
    relative = jnp.linalg.norm(logits - expected) / jnp.linalg.norm(expected)
    assert relative < {"bfloat16": 0.04, "float16": 0.005}[dtype]
    assert relative > 1e-6


def test_params_are_a_plain_tree_with_stacked_layers(config, params):
    paths, leaves, _ = flatten_with_paths(params)
    shapes = dict(zip(paths, (leaf.shape for leaf in leaves), strict=True))
    layers, d, f = config.num_layers, config.width, config.hidden_width
    h, g, k = config.num_heads, config.num_kv_heads, config.head_width
    expected = {
        "embedding": (config.vocab_size, d),
        "final_norm": (d,),
        "layers/attention/key": (layers, d, g, k),
        "layers/attention/output": (layers, h, k, d),
        "layers/attention/query": (layers, d, h, k),
        "layers/attention/value": (layers, d, g, k),
        "layers/attention_norm": (layers, d),
        "layers/mlp/down": (layers, f, d),
        "layers/mlp/gate": (layers, d, f),
        "layers/mlp/up": (layers, d, f),
        "layers/mlp_norm": (layers, d),
    }
    if not config.tied:
        expected["head"] = (d, config.vocab_size)
    assert shapes == expected
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_init_draws_every_layer_anew_with_unit_gain():
    config = DecoderConfig(**(GOOD | {"num_layers": 2, "width": 32, "hidden_width": 48}))
    init = jax.jit(init_params, static_argnums=0)
    params, other = (init(config, jax.random.key(seed)) for seed in (3, 4))
    assert not np.array_equal(params["embedding"], other["embedding"])
    np.testing.assert_array_equal(params["final_norm"], 1)
    assert not np.array_equal(
        params["layers"]["mlp"]["gate"][0], params["layers"]["mlp"]["gate"][1]
    )
    # Variance 1 / fan-in: 5 standard errors of the variance of normals.
    for path, fan_in in (("gate", 32), ("up", 32), ("down", 48)):
        weight = np.asarray(params["layers"]["mlp"][path])
        assert abs(weight.var() * fan_in - 1) < 5 * np.sqrt(2 / weight.size)


def test_weights_and_scores_are_not_transposed(config, params, token_ids):
    """No equation transposes a weight, and none the [T, T] scores."""
    text = str(jax.make_jaxpr(decoder_apply_fn(config))(params, token_ids))
    outputs = [line.split(" = transpose[")[0] for line in text.splitlines() if "transpose[" in line]
    assert len(outputs) == 4  # query, key, value and mixed: heads in front of positions
    # An axis of length 9 is T (no other size is 9); it occurs once.
    assert all(shape[shape.index("[") :].count("9") == 1 for shape in outputs)


def test_ids_outside_the_vocabulary_give_nan_not_another_token(config, apply_fn, params):
    vocab_size = config.vocab_size
    token_ids = jnp.array([[1, 2, 0] * 3, [1, 2, vocab_size] * 3, [1, 2, -1] * 3])
    logits = apply_fn(params, token_ids)
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1:, 2]).all()
    positions = jnp.array([[1, 9, 2, 8]] * 3)
    logits = apply_fn(params, jnp.zeros_like(token_ids), positions)
    assert np.isnan(logits[:, 1]).all()
    assert np.isfinite(logits[:, [0, 2, 3]]).all()


def test_numpy_arrays_are_accepted_and_nothing_is_changed(config, apply_fn, params, token_ids):
    arrays = jax.tree.map(np.array, params)
    ids, positions = np.array(token_ids), np.zeros((3, 4), int)
    logits = decoder_apply_fn(config)(arrays, ids, positions)
    np.testing.assert_allclose(logits, apply_fn(params, ids, positions), rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(arrays) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, arrays, params)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300, 513])
def test_blocks_of_long_sequences_equal_one_causal_softmax(length):
    rng = np.random.default_rng(length)
    query, key, value = (rng.normal(size=(2, length, heads, 4)) for heads in (6, 2, 2))
    attended = attend(*(jnp.asarray(x, jnp.float32) for x in (query, key, value)))
    scores = np.einsum("nthk,nshk->nhts", query, np.repeat(key, 3, axis=2)) / 2
    weights = np.exp(scores) * np.tri(length)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("nhts,nshk->nthk", weights, np.repeat(value, 3, axis=2))
    np.testing.assert_allclose(attended, expected, atol=1e-5)


def test_wrong_inputs_are_refused(config, params):
    apply_fn = decoder_apply_fn(config)
    with pytest.raises(ValueError, match="longer than the context of 12"):
        apply_fn(params, jnp.zeros((1, 13), int))
    with pytest.raises(ValueError, match="expected integers of shape"):
        apply_fn(params, jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="expected integers of shape"):
        apply_fn(params, jnp.zeros(3, int))
    with pytest.raises(ValueError, match="positions has shape"):
        apply_fn(params, jnp.zeros((1, 3), int), jnp.zeros(3, int))
    broken = params | {"final_norm": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"'final_norm' has shape \(3,\)"):
        apply_fn(broken, jnp.zeros((1, 3), int))
    with pytest.raises(ValueError, match="'extra' has shape"):
        apply_fn(params | {"extra": jnp.ones(3)}, jnp.zeros((1, 3), int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"num_layers": True}, "num_layers is True"),
        ({"width": 9}, "not a multiple of num_heads"),
        ({"num_heads": 4, "num_kv_heads": 3}, "not a multiple of num_kv_heads"),
        ({"num_heads": 8, "num_kv_heads": 8}, "must be even"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"rope_theta": float("nan")}, "rope_theta is nan"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    DecoderConfig(**GOOD)
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**(GOOD | change))
