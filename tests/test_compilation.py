"""Compiled with our options, XLA's CPU backend computes what the program says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax.compilation import compiler_options
from fishjax.gradients import output_gram
from fishjax.models import DecoderConfig, decoder_apply_fn, init_params
from fishjax.trees import flatten_with_paths

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="options of the CPU")


def chained(c, x):
    """Two reductions in a row, a broadcast of each between: wrong with XLA's defaults."""
    return jnp.sum((c @ jnp.ones((c.shape[-1],) * 2)) * x, axis=-1)


def test_a_chain_of_reductions_is_right():
    rng = np.random.default_rng(0)
    c, x = (np.asarray(rng.normal(size=s), np.float32) for s in ((6, 472, 8), (472, 8)))
    fn = jax.jit(chained, compiler_options=compiler_options())
    expected = (c.astype(float).sum(-1, keepdims=True) * x).sum(-1)
    np.testing.assert_allclose(fn(c, x), expected, atol=1e-4)


def test_gradients_of_several_outputs_are_right_where_the_defaults_are_not():
    # with XLA's defaults in jaxlib 0.10, jax.jacrev of this function is wrong by a factor of 2
    config = DecoderConfig(
        vocab_size=16, width=8, hidden_width=8, num_layers=1, num_heads=4, num_kv_heads=2,
        context_length=512,
    )  # fmt: skip
    params, apply_fn = init_params(config, jax.random.key(0)), decoder_apply_fn(config)
    length, rows = 472, 2
    ids = jax.random.randint(jax.random.key(1), (rows, length), 0, config.vocab_size)
    places = jnp.tile(jnp.linspace(length // 2, length - 1, 3).astype(jnp.int32), (rows, 1))

    def outputs(params, batch):
        return jax.nn.log_softmax(apply_fn(params, *batch))[..., 3]

    options = compiler_options()
    _, gram = jax.jit(output_gram(outputs), compiler_options=options)(params, (ids, places))
    gradient = jax.jit(
        jax.grad(lambda p, n, k: outputs(p, (ids[n][None], places[n][None]))[0, k]),
        compiler_options=options,
    )
    found = [[gradient(params, n, k) for k in range(3)] for n in range(rows)]
    paths, _, _ = flatten_with_paths(params)
    for number, path in enumerate(paths):
        flat = np.array([[np.ravel(jax.tree.leaves(g)[number]) for g in row] for row in found])
        expected = np.einsum("nkp,nlp->nkl", flat, flat)
        one = np.asarray(gram.by_parameter[path])
        one = one.reshape(-1, *one.shape[-3:]).sum(0)
        np.testing.assert_allclose(one, expected, atol=1e-4 * np.abs(expected).max(), err_msg=path)
