"""Comparisons of the engine's norms with materialised gradients, one parameter at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from fishjax import gradients
from fishjax.gradients.reference import per_example_gradients
from fishjax.trees import flatten_with_paths


def dense_gradients(fn, params, batch):
    """(outputs, {path: gradients `[N, size]`}) by `vmap(grad)`, in the arguments' dtype."""
    outputs, grads = jax.jit(per_example_gradients(fn))(params, batch)
    paths, leaves, _ = flatten_with_paths(grads)
    kept = {
        path: np.asarray(leaf).reshape(leaf.shape[0], -1)
        for path, leaf in zip(paths, leaves, strict=True)
        if leaf.dtype != jax.dtypes.float0
    }
    return np.asarray(outputs), kept


def by_example(values, ndim):
    """Sums away layer axes in front."""
    values = np.asarray(values)
    return values.reshape(-1, *values.shape[values.ndim - ndim :]).sum(0)


def assert_same_float64(outputs, norms, expected_outputs, grads):
    """Every parameter's squared norm to 1e-10; zero gradients to 1e-20 of the largest."""
    np.testing.assert_allclose(outputs, expected_outputs, rtol=1e-12)
    assert set(norms.by_parameter) == set(grads)
    total = sum((g**2).sum(1) for g in grads.values())
    for path, g in grads.items():
        np.testing.assert_allclose(
            by_example(norms.by_parameter[path], 1),
            (g**2).sum(1),
            rtol=1e-10,
            atol=1e-20 * total.max(),
            err_msg=path,
        )
    np.testing.assert_allclose(norms.total, total, rtol=1e-10)


def assert_close_float32(norms, grads):
    """|error| <= 1e-5 |g_p|^2 + 1e-10 |g|^2 for every parameter p; `grads` are float64."""
    total = sum((g**2).sum(1) for g in grads.values())
    for path, g in grads.items():
        expected = (g**2).sum(1)
        error = np.abs(by_example(norms.by_parameter[path], 1) - expected)
        assert np.all(error <= 1e-5 * expected + 1e-10 * total), path


def narrow(tree):
    """float32 and int32 copies of a tree of arrays."""
    kinds = {"f": jnp.float32, "i": jnp.int32}
    return jax.tree.map(lambda x: x.astype(kinds[x.dtype.kind]), tree)


def assert_close_bfloat16(fn, params, batch, norms_of=None):
    """A bfloat16 model within 2 % of a float32 model of the same rounded weights.

    Where the model itself is further off, so is autodiff in bfloat16, as far. `norms_of`: the
    jitted norms of `fn`, where another test has them compiled in float32.
    """
    half = _cast((params, batch), jnp.bfloat16)
    norms_of = norms_of or jax.jit(gradients.squared_norms(fn))
    _, norms = norms_of(*half)
    _, exact = norms_of(*_cast(half, jnp.float32))
    assert norms.total.dtype == jnp.float32
    error = np.abs(norms.total / exact.total - 1).max()
    if error > 0.02:
        _, grads = jax.jit(per_example_gradients(fn))(*half)
        leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(grads)]
        autodiff = sum(np.square(g).reshape(g.shape[0], -1).sum(1) for g in leaves)
        assert error < 1.1 * np.abs(autodiff / exact.total - 1).max()
        np.testing.assert_allclose(norms.total, autodiff, rtol=0.02)


def _cast(tree, dtype):
    def of(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(of, tree)
