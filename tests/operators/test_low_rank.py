"""The low-rank type couples parameters; its quadratic form needs only inner products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import operators


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def test_dense_matrix_by_hand():
    rng = np.random.default_rng(0)
    u, d = rng.standard_normal((2, 7)), rng.standard_normal(7)
    basis = {"a": u[:, :3], "b": u[:, 3:].reshape(2, 2, 2)}
    like = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    for diagonal, full in (
        (1.5, 1.5 * np.eye(7)),
        ({"a": d[:3], "b": d[3:].reshape(2, 2)}, np.diag(d)),
    ):
        operator = operators.LowRankPlusDiagonal(basis, diagonal)
        np.testing.assert_allclose(
            operators.to_dense(operator, like=like), full + u.T @ u, rtol=1e-13
        )


def test_couples_leaves():
    operator = operators.LowRankPlusDiagonal({"a": jnp.ones((1, 2)), "b": jnp.ones((1, 3))}, 0.0)
    product = operators.multiply(operator, {"a": jnp.array([1.0, 0.0]), "b": jnp.zeros(3)})
    np.testing.assert_array_equal(product["b"], np.ones(3))
    metrics = operators.leaf_metrics(operator, {"a": jnp.zeros(2), "b": jnp.zeros(3)})
    alone = operators.apply(metrics["b"], jnp.zeros((1, 3)))
    np.testing.assert_array_equal(alone, np.zeros((1, 3)))


def test_form_of_the_whole_from_inner_products_of_the_parts():
    rng = np.random.default_rng(1)
    basis = {"a": rng.standard_normal((4, 3)), "b": rng.standard_normal((4, 2, 2))}
    operator = operators.LowRankPlusDiagonal(basis, 0.25)
    v = {"a": jnp.asarray(rng.standard_normal(3)), "b": jnp.asarray(rng.standard_normal((2, 2)))}
    projections = sum(basis[p].reshape(4, -1) @ np.ravel(v[p]) for p in basis)
    expected = 0.25 * sum(jnp.sum(v[p] ** 2) for p in v) + np.sum(projections**2)
    np.testing.assert_allclose(operators.quadratic(operator, v), expected, rtol=1e-13)


def test_never_negative_where_the_product_cancels():
    with jax.enable_x64(False):
        u = jnp.array([[1e4, 1.0]])
        operator = operators.LowRankPlusDiagonal(u, 0.0)
        assert operators.quadratic(operator, jnp.array([1e-4, -1.0])) >= 0
