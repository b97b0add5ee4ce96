"""Every case against float64 `vmap(grad)`, parameter by parameter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture, gradients
from fishjax.gradients.reference import dense_grouped_gram, per_example_gradients
from fishjax.trees import flatten_with_paths

from .cases import CASES, N

SOME = [
    *("decoder_remat", "tied_one_hot", "tied_chunked_cross_entropy", "scan_in_scan"),
    *("shared_layers_many_rows", "stacked_and_direct", "lora_both_ways", "mixture_of_experts"),
    *("layer_norm_and_positions", "convolution", "derived_weights_in_scan"),
]


@functools.cache
def reference(name):
    """(outputs, {path: flat gradients}) in float64."""
    fn, params, batch = CASES[name]()
    outputs, grads = jax.jit(per_example_gradients(fn))(params, batch)
    paths, leaves, _ = flatten_with_paths(grads)
    kept = {
        path: np.asarray(leaf).reshape(N, -1)
        for path, leaf in zip(paths, leaves, strict=True)
        if leaf.dtype != jax.dtypes.float0
    }
    return np.asarray(outputs), kept


def by_example(values, ndim):
    """Sums away layer axes in front."""
    values = np.asarray(values)
    return values.reshape(-1, *values.shape[values.ndim - ndim :]).sum(0)


@pytest.mark.parametrize("name", CASES)
def test_float64(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        outputs, grads = reference(name)
        got, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
        np.testing.assert_allclose(got, outputs, rtol=1e-12)
        assert set(norms.by_parameter) == set(grads)
        total = sum((g**2).sum(1) for g in grads.values())
        for path, g in grads.items():
            expected = (g**2).sum(1)
            np.testing.assert_allclose(
                by_example(norms.by_parameter[path], 1),
                expected,
                rtol=1e-10,
                atol=1e-20 * total.max(),
            )
        np.testing.assert_allclose(norms.total, total, rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        _, grads = reference(name)
    narrow = lambda x: x.astype({"f": jnp.float32, "i": jnp.int32}[x.dtype.kind])  # noqa: E731
    with jax.enable_x64(False):
        params, batch = jax.tree.map(narrow, params), jax.tree.map(narrow, batch)
        _, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
    total = sum((g**2).sum(1) for g in grads.values())
    for path, g in grads.items():
        expected = (g**2).sum(1)
        error = np.abs(by_example(norms.by_parameter[path], 1) - expected)
        assert np.all(error <= 1e-5 * expected + 1e-10 * total), path


@pytest.mark.parametrize("name", SOME)
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
    "name", ["decoder_scan", "tied_transpose", "derived_weights", "convolution"]
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
