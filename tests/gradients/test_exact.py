"""Every case against float64 `vmap(grad)`, parameter by parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture, gradients
from fishjax.gradients.reference import dense_grouped_gram, per_example_gradients

from .cases import N
from .compare import (
    assert_close_bfloat16,
    assert_close_float32,
    assert_same_float64,
    dense_gradients,
    narrow,
)
from .slices import CASES

SOME = [
    *("decoder_remat", "tied_one_hot", "tied_chunked_cross_entropy", "scan_in_scan"),
    *("shared_layers_many_rows", "stacked_and_direct", "lora_both_ways", "mixture_of_experts"),
    *("layer_norm_and_positions", "convolution", "derived_weights_in_scan"),
    *("separate_slices", "sliced_table", "stack_used_repeatedly"),
]


# scope: all tests of a case after each other, so that they share what is compiled
every = pytest.mark.parametrize("name", CASES, scope="module")
some = pytest.mark.parametrize("name", SOME, scope="module")


@functools.cache
def reference(name):
    """(outputs, {path: flat gradients}) in float64."""
    return dense_gradients(*CASES[name]())


@functools.lru_cache(maxsize=1)
def narrow_norms(name):
    """(fn, float32 params and batch, jitted norms)."""
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
    return fn, narrow(params), narrow(batch), jax.jit(gradients.squared_norms(fn))


@every
def test_float64(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        got, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
        assert_same_float64(got, norms, *reference(name))


@every
def test_float32(name):
    with jax.enable_x64(True):
        _, grads = reference(name)
    with jax.enable_x64(False):
        _, params, batch, norms_of = narrow_norms(name)
        _, norms = norms_of(params, batch)
    assert_close_float32(norms, grads)


@some
def test_kernel_and_groups(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        _, grads = reference(name)
        stacked = np.concatenate(list(grads.values()), axis=1)
        gram = stacked @ stacked.T
        half = jax.tree.map(lambda x: x[:2], batch)
        kernel = jax.jit(gradients.inner_products(fn))(params, batch, half)
        np.testing.assert_allclose(kernel, gram[:, :2], rtol=1e-9, atol=1e-12 * gram.max())

        groups = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
        mask = jnp.array([[True, True], [True, False]])
        _, got = jax.jit(gradients.grouped_gram(fn))(params, groups, mask)
        _, expected = jax.jit(dense_grouped_gram(fn))(params, groups, mask)
        np.testing.assert_allclose(got.total, expected.total, rtol=1e-9, atol=1e-12 * gram.max())


@pytest.mark.parametrize(
    "name",
    [
        *("decoder_scan", "tied_transpose", "derived_weights", "convolution"),
        *("separate_slices", "separate_parts_of_a_table"),
    ],
    scope="module",
)
def test_materialise_gives_the_gradient_itself(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        _, grads = reference(name)
        _, got = jax.jit(capture.sitewise(fn, lambda g: g.materialise()))(params, batch)
        for path, g in grads.items():
            value = np.asarray(got[path])
            if path.startswith("layers/"):
                value = np.moveaxis(value, 0, 1)
            np.testing.assert_allclose(value.reshape(N, -1), g, rtol=1e-9, atol=1e-13)


def test_third_party_worked_example():
    # losses (d - p)^2 / 2 at p = 3 on data [0, 7, -2]: gradient norms 3, 4, 5
    fn = lambda p, d: 0.5 * (d - p) ** 2  # noqa: E731
    _, norms = gradients.squared_norms(fn)(jnp.array(3.0), jnp.array([0.0, 7.0, -2.0]))
    np.testing.assert_allclose(np.sqrt(norms.total), [3.0, 4.0, 5.0])


def test_layers_of_a_scan_are_rows():
    with jax.enable_x64(True):
        fn, params, batch = CASES["decoder_scan"]()
        _, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
        _, grads = jax.jit(per_example_gradients(fn))(params, batch)
        for name, g in grads["layers"].items():
            expected = np.asarray((g**2).reshape(*g.shape[:2], -1).sum(-1)).T
            np.testing.assert_allclose(norms.by_parameter[f"layers/{name}"], expected, atol=1e-12)


def test_jacobian_gram():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params = dict(
            a=jnp.asarray(rng.normal(size=(4, 6))), b=jnp.asarray(rng.normal(size=(6, 3)))
        )
        x = jnp.asarray(rng.normal(size=(5, 4)))
        apply_fn = lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"]  # noqa: E731
        outputs, gram = jax.jit(gradients.jacobian_gram(apply_fn))(params, x)
        jacobian = jax.vmap(jax.jacrev(lambda p, row: apply_fn(p, row[None])[0]), (None, 0))(
            params, x
        )
        flat = np.concatenate(
            [np.asarray(j).reshape(5, 3, -1) for j in jax.tree.leaves(jacobian)], 2
        )
        np.testing.assert_allclose(outputs, apply_fn(params, x), rtol=1e-12)
        np.testing.assert_allclose(gram, flat @ np.swapaxes(flat, 1, 2), rtol=1e-10)


@every
def test_bfloat16(name):
    assert_close_bfloat16(*narrow_norms(name))
