"""Conventions of the Kronecker types against `np.kron`, layer by layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishjax import operators
from fishjax.operators import EigenKroneckerFactors, Kronecker, KroneckerFactors

SETTINGS = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def symmetric(rng, size):
    root = rng.standard_normal((size, size))
    return root + root.T


def dense(metric, shape):
    return np.asarray(operators.to_dense(metric, like=jnp.zeros(shape)))


def test_row_major_block_is_kron_of_left_and_right():
    rng = np.random.default_rng(0)
    a, g, w = symmetric(rng, 4), symmetric(rng, 3), rng.standard_normal((4, 3))
    metric = KroneckerFactors(a, g)
    np.testing.assert_allclose(dense(metric, (4, 3)), np.kron(a, g), rtol=1e-14)
    product = operators.multiply(metric, jnp.asarray(w))
    np.testing.assert_allclose(product, a @ w @ g, rtol=1e-12)
    np.testing.assert_allclose(np.ravel(product), np.kron(a, g) @ w.ravel(), rtol=1e-12)


def test_fisher_of_one_dense_example_is_the_kronecker_of_its_factors():
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal(4), rng.standard_normal(3)
    gradient = jnp.asarray(np.outer(x, g))
    metric = KroneckerFactors(np.outer(x, x), np.outer(g, g))
    fisher = np.outer(gradient.ravel(), gradient.ravel())
    np.testing.assert_allclose(dense(metric, (4, 3)), fisher, rtol=1e-12)


@given(data=st.data())
@SETTINGS
def test_any_split_of_any_shape(data):
    with jax.enable_x64(True):
        shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=4)))
        order = data.draw(st.permutations(range(len(shape))))
        cut = data.draw(st.integers(0, len(shape)))
        left_axes, right_axes = tuple(order[:cut]), tuple(order[cut:])
        rng = np.random.default_rng(data.draw(st.integers(0, 9)))
        rows, columns = (int(np.prod([shape[a] for a in axes])) for axes in (left_axes, right_axes))
        kinds = [symmetric(rng, rows), rng.standard_normal(rows), None]
        left = data.draw(st.sampled_from(kinds))
        kinds = [symmetric(rng, columns), rng.standard_normal(columns), None]
        right = data.draw(st.sampled_from(kinds))
        metric = KroneckerFactors(left, right, left_axes, right_axes)
        w = rng.standard_normal(shape)
        matrix = np.transpose(w, order).reshape(rows, columns)
        full = [
            np.eye(n) if s is None else np.diag(s) if s.ndim == 1 else s
            for s, n in ((left, rows), (right, columns))
        ]
        product = full[0] @ matrix @ full[1]
        expected = np.transpose(product.reshape([shape[a] for a in order]), np.argsort(order))
        np.testing.assert_allclose(
            operators.multiply(metric, jnp.asarray(w)), expected, rtol=1e-10, atol=1e-12
        )
        block = dense(metric, shape)
        np.testing.assert_allclose(block, block.T, atol=1e-13)
        np.testing.assert_allclose(block @ w.ravel(), expected.ravel(), rtol=1e-10, atol=1e-12)


def test_defaults_name_one_side_only():
    rng = np.random.default_rng(2)
    a, g = symmetric(rng, 3), symmetric(rng, 8)
    explicit = KroneckerFactors(a, g, (1,), (0, 2))
    for partial in (
        KroneckerFactors(a, g, left_axes=(1,)),
        KroneckerFactors(a, g, right_axes=(0, 2)),
    ):
        np.testing.assert_array_equal(dense(partial, (2, 3, 4)), dense(explicit, (2, 3, 4)))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("eigen", [False, True])
def test_stacked_layers_equal_a_loop(batch, eigen):
    rng = np.random.default_rng(3)
    layers, shape = (2, 3)[:batch], (2, 2, 3)
    if eigen:
        arrays = (
            rng.standard_normal((*layers, 4, 4)),
            rng.standard_normal((*layers, 3, 3)),
            rng.standard_normal((*layers, 4, 3)),
        )
        build = EigenKroneckerFactors
    else:
        arrays = (rng.standard_normal((*layers, 4)), rng.standard_normal((*layers, 3, 3)))
        build = KroneckerFactors
    metric = build(*arrays, batch=batch)
    w = jnp.asarray(rng.standard_normal((*layers, *shape)))
    product = operators.multiply(metric, w)
    number_of_layers = int(np.prod(layers))
    block = dense(metric, w.shape).reshape(2 * (number_of_layers, 12)).copy()
    total = 0.0
    for number, layer in enumerate(itertools.product(*map(range, layers))):
        one = build(*(a[layer] for a in arrays))
        np.testing.assert_allclose(product[layer], operators.multiply(one, w[layer]), rtol=1e-12)
        np.testing.assert_allclose(block[number, :, number], dense(one, shape), rtol=1e-12)
        block[number, :, number] = 0
        total += operators.quadratic(one, w[layer])
    assert not block.any()
    np.testing.assert_allclose(operators.quadratic(metric, w), total, rtol=1e-12)


def test_eigen_kronecker_of_eigendecompositions_is_the_kronecker():
    rng = np.random.default_rng(4)
    a, g = symmetric(rng, 4), symmetric(rng, 3)
    (values_a, basis_a), (values_g, basis_g) = np.linalg.eigh(a), np.linalg.eigh(g)
    metric = EigenKroneckerFactors(basis_a, basis_g, np.outer(values_a, values_g))
    np.testing.assert_allclose(dense(metric, (4, 3)), np.kron(a, g), atol=1e-12)
    free = rng.standard_normal((4, 3))
    basis = np.kron(basis_a, basis_g)
    np.testing.assert_allclose(
        dense(EigenKroneckerFactors(basis_a, basis_g, free), (4, 3)),
        basis @ np.diag(free.ravel()) @ basis.T,
        atol=1e-12,
    )


def test_eigen_quadratic_is_never_negative():
    rng = np.random.default_rng(5)
    with jax.enable_x64(False):
        basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
        metric = EigenKroneckerFactors(basis, None, np.diag([1.0] + [0.0] * 5))
        null = np.outer(basis[:, 1], np.eye(6)[1])
        assert operators.quadratic(metric, jnp.asarray(null, jnp.float32)) >= 0


def test_no_kronecker_product_is_formed():
    metric = Kronecker({"w": KroneckerFactors(jnp.eye(200), jnp.eye(300))})
    program = jax.make_jaxpr(operators.multiply)(metric, {"w": jnp.ones((200, 300))})
    sizes = [v.aval.size for eqn in program.jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) <= 300 * 300
