"""Where floating point could betray: cancellation, extreme scales, padding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture, gradients
from fishjax.capture import MixedExamplesError, Outer
from fishjax.gradients.pairwise import pairwise


def cancelling(rows, width, seed=0):
    """Near-constant activations, zero-sum cotangents (methods 2): float32 factors and the norm."""
    rng = np.random.default_rng(seed)
    a = (1 + 0.001 * rng.normal(size=(2, rows, width))).astype(np.float32)
    b = rng.normal(size=(2, rows, width))
    b = (b - b.mean(1, keepdims=True)).astype(np.float32)
    dense = a.astype(np.float64).swapaxes(1, 2) @ b.astype(np.float64)
    return a, b, (dense**2).sum((1, 2))


@pytest.mark.parametrize("swap", [False, True], ids=["data on the left", "data on the right"])
@pytest.mark.parametrize(("rows", "width"), [(48, 128), (200, 512), (1024, 2100)])
def test_the_gram_form_does_not_cancel(rows, width, swap):
    a, b, expected = cancelling(rows, width)
    factors = [jnp.asarray(x)[:, None] for x in ((b, a) if swap else (a, b))]
    gradient = Outer(*factors, (width, width), (0, 1), data_on_left=not swap)
    norms = pairwise(gradient, gradient, 2)[:, 0, 0]
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    kernel = pairwise(gradient, gradient, 1)[0]
    np.testing.assert_allclose(np.diag(kernel), expected, rtol=1e-4)


def test_a_program_in_the_cancelling_regime():
    a, b, expected = cancelling(100, 256)
    fn = lambda w, batch: jnp.einsum("nri,ij,nrj->n", batch[0], w, batch[1])  # noqa: E731
    dense = lambda w, batch: jnp.sum((batch[0] @ w) * batch[1], axis=(1, 2))  # noqa: E731
    w = jnp.zeros((256, 256))
    for function in (fn, dense):
        _, norms = jax.jit(gradients.squared_norms(function))(w, (jnp.asarray(a), jnp.asarray(b)))
        np.testing.assert_allclose(norms.total, expected, rtol=1e-4)


@pytest.mark.parametrize("exponent", [-15, -10, 0, 10, 15])
def test_squared_norms_from_1e_minus_30_to_1e30(exponent):
    rng = np.random.default_rng(0)
    params = dict(w=jnp.asarray(rng.normal(size=(32, 32)) / 6, jnp.float32), b=jnp.zeros(32))
    x = jnp.asarray(rng.normal(size=(3, 5, 32)), jnp.float32)
    factor = 10.0**exponent

    def fn(p, x, factor=1.0):
        return factor * jnp.tanh(x @ p["w"] + p["b"]).sum((1, 2))

    _, plain = jax.jit(gradients.squared_norms(fn))(params, x)
    _, scaled = jax.jit(gradients.squared_norms(lambda p, x: fn(p, x, factor)))(params, x)
    for path, norm in plain.by_parameter.items():
        got = np.asarray(scaled.by_parameter[path], np.float64) / factor / factor
        np.testing.assert_allclose(got, norm, rtol=1e-4)


def test_padding_adds_nothing():
    rng = np.random.default_rng(0)
    params = dict(
        table=jnp.asarray(rng.normal(size=(7, 8)), jnp.float32),
        w=jnp.asarray(rng.normal(size=(8, 8)), jnp.float32),
    )

    def fn(p, batch):
        h = jnp.tanh(p["table"][batch["ids"]] @ p["w"])
        return (h.sum(-1) * batch["mask"]).sum(-1)

    ids = rng.integers(0, 7, (4, 6))
    mask = np.arange(6) < np.array([6, 3, 1, 4])[:, None]
    batch = dict(ids=jnp.asarray(ids), mask=jnp.asarray(mask, jnp.float32))
    _, padded = jax.jit(gradients.squared_norms(fn))(params, batch)
    for n, length in enumerate(mask.sum(1)):
        alone = dict(ids=batch["ids"][n : n + 1, :length], mask=batch["mask"][n : n + 1, :length])
        _, norms = gradients.squared_norms(fn)(params, alone)
        np.testing.assert_allclose(padded.total[n], norms.total[0], rtol=1e-5)


def batch_norm(p, x):
    h = x @ p["w"]
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)
    return jnp.tanh(h * p["scale"]).sum(1)


def one_dropout_key(p, x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(keep, x @ p["w"], 0).sum(1)


def limited_capacity(p, x):
    """The expert takes the first two of the batch."""
    taken = jnp.cumsum(jnp.ones(x.shape[0])) <= 2
    return jnp.where(taken, (x @ p["w"]).sum(1), 0)


@pytest.mark.parametrize("fn", [batch_norm, one_dropout_key, limited_capacity])
def test_functions_that_mix_examples_are_refused(fn):
    params = dict(w=jnp.eye(3) + 0.1, scale=jnp.ones(3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    for call in (
        lambda: gradients.squared_norms(fn)(params, x),
        lambda: gradients.inner_products(fn)(params, x, x),
        lambda: gradients.inner_products(fn, tile=2)(params, x, x),
        lambda: capture.uses(fn, params, x),
        lambda: capture.verify(fn, params, x),
    ):
        with pytest.raises(MixedExamplesError, match="fn mixes examples: example"):
            call()


def test_functions_that_only_look_like_mixing_are_accepted():
    """A shift by the batch's maximum changes no value beyond rounding."""
    fn = lambda p, x: jax.nn.logsumexp(x @ p - (x @ p).max(), axis=1) + (x @ p).max()  # noqa: E731
    p, x = jnp.eye(3), jnp.arange(12.0).reshape(4, 3)
    capture.verify(fn, p, x)
    for dtype in (jnp.bfloat16, jnp.float16):
        fn = lambda p, x: jnp.tanh(x @ p).sum(1)  # noqa: E731
        capture.verify(fn, p.astype(dtype), x.astype(dtype))


def test_the_check_needs_one_row_per_example():
    with pytest.raises(ValueError, match="expected the example axis first"):
        capture.verify(lambda p, x: (x @ p).sum(), jnp.ones(3), jnp.ones((4, 3)))


def test_not_a_number_stays_visible():
    fn = lambda p, x: jnp.log(x @ p)  # noqa: E731
    x = jnp.array([[1.0, 1.0], [-1.0, 0.5], [0.0, 0.0]])
    _, norms = gradients.squared_norms(fn)(jnp.ones(2), x)
    assert np.isfinite(norms.total[0])
    assert not np.isfinite(norms.total[2])
