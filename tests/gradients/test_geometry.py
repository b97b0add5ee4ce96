"""Functions of gradients against the dense oracle: outputs, tiles, clipping, blocks, selection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import gradients
from fishjax.trees import flatten_with_paths

from .cases import CASES, N
from .compare import dense_gradients


def vector_fn():
    """K = 3 outputs through a scan, an embedding, a tied head, a norm and a convolution."""
    rng = np.random.default_rng(0)
    w = lambda *s: jnp.asarray(rng.normal(size=s) / 2)  # noqa: E731
    params = dict(table=w(7, 4), layers=w(2, 4, 4), scale=w(4), kernel=w(3, 4, 4))

    def fn(p, ids):
        h = p["table"][ids]
        h, _ = jax.lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), h, p["layers"])
        h = jax.lax.conv_general_dilated(
            h, p["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        logits = (h * p["scale"]) @ p["table"].T
        log_probs = jax.nn.log_softmax(logits[:, :-1])
        return jnp.take_along_axis(log_probs, ids[:, 1:, None], -1)[..., 0]

    return fn, params, jnp.asarray(rng.integers(0, 7, (5, 4)))


def vector_jacobian(fn, params, batch):
    jac = jax.vmap(jax.jacrev(lambda p, row: fn(p, row[None])[0]), (None, 0))(params, batch)
    return {k: np.asarray(v) for k, v in jac.items()}


def test_jacobian_gram_shares_one_forward():
    with jax.enable_x64(True):
        fn, params, batch = vector_fn()
        jac = vector_jacobian(fn, params, batch)
        dense = np.concatenate([j.reshape(5, 3, -1) for j in jac.values()], 2)
        outputs, gram = jax.jit(gradients.jacobian_gram(fn))(params, batch)
        np.testing.assert_allclose(outputs, fn(params, batch), rtol=1e-12)
        np.testing.assert_allclose(gram, dense @ dense.swapaxes(1, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_every_output_has_its_norm(chunk):
    with jax.enable_x64(True):
        fn, params, batch = vector_fn()
        jac = vector_jacobian(fn, params, batch)
        outputs, norms = jax.jit(gradients.output_squared_norms(fn, chunk=chunk))(params, batch)
        np.testing.assert_allclose(outputs, fn(params, batch), rtol=1e-12)
        for name, j in jac.items():
            expected = (j.reshape(5, 3, -1) ** 2).sum(-1)
            got = norms.by_parameter[name]
            if name == "layers":
                expected = (j**2).sum((-1, -2)).transpose(2, 0, 1)
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-13)
        total = sum((j.reshape(5, 3, -1) ** 2).sum(-1) for j in jac.values())
        np.testing.assert_allclose(norms.total, total, rtol=1e-9)


@pytest.mark.parametrize("tile", [1, 3, 4, 100])
def test_tiles_change_nothing(tile):
    with jax.enable_x64(True):
        fn, params, batch = CASES["decoder_scan"]()
        half = jax.tree.map(lambda x: x[:3], batch)
        whole = jax.jit(gradients.inner_products(fn))(params, batch, half)
        tiled = jax.jit(gradients.inner_products(fn, tile=tile))(params, batch, half)
        assert tiled.shape == (N, 3)
        np.testing.assert_allclose(tiled, whole, rtol=1e-10)


@pytest.mark.parametrize(
    "name", ["decoder_scan", "tied_one_hot", "albert_shared_layers", "convolution"]
)
def test_sums_and_blocks(name):
    with jax.enable_x64(True):
        fn, params, batch = CASES[name]()
        _, grads = dense_gradients(fn, params, batch)
        norm = np.sqrt(sum((g**2).sum(1) for g in grads.values()))
        limit = float(np.median(norm))
        _, got = jax.jit(gradients.clipped_gradients(fn, limit))(params, batch)
        np.testing.assert_allclose(np.sqrt(got.norms.total), norm, rtol=1e-9)
        weights = np.minimum(1, limit / norm)
        sums, clipped = (dict(_paths(t)) for t in (got.gradient, got.clipped))
        _, blocks = jax.jit(gradients.gradient_blocks(fn, parameters=None))(params, batch)
        for path, g in grads.items():
            slack = 1e-13 * norm.max()
            assert blocks[path].shape == (N, *sums[path].shape)
            np.testing.assert_allclose(blocks[path].reshape(N, -1), g, rtol=1e-9, atol=slack)
            for total, weight in ((sums, np.ones(N)), (clipped, weights)):
                np.testing.assert_allclose(
                    total[path].reshape(-1), weight @ g, rtol=1e-9, atol=N * slack
                )


def _paths(tree):
    paths, leaves, _ = flatten_with_paths(tree)
    return zip(paths, leaves, strict=True)


def test_selected_parameters_only():
    with jax.enable_x64(True):
        fn, params, batch = CASES["decoder_scan"]()
        _, every = jax.jit(gradients.squared_norms(fn))(params, batch)
        for selection, expected in (
            ("layers/*", [p for p in every.by_parameter if p.startswith("layers/")]),
            (["qkv", "embedding"], ["embedding", "layers/qkv"]),
            (lambda path: path.endswith("norm"), ["layers/norm", "norm"]),
        ):
            _, some = jax.jit(gradients.squared_norms(fn, parameters=selection))(params, batch)
            assert set(some.by_parameter) == set(expected)
            for path in expected:
                np.testing.assert_allclose(
                    some.by_parameter[path], every.by_parameter[path], rtol=1e-9
                )
        with pytest.raises(ValueError, match="no parameter matches 'attention/nothing'"):
            gradients.squared_norms(fn, parameters="attention/nothing")(params, batch)


def test_unselected_parameters_cost_nothing():
    """The last layer alone: the backward pass stops there."""
    params = dict(a=jnp.ones((64, 64)), b=jnp.ones((64, 64)), c=jnp.ones((64, 1)))
    fn = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"][:, 0]  # noqa: E731
    x = jnp.ones((32, 64))
    cost = lambda f: jax.jit(f).lower(params, x).compile().cost_analysis()["flops"]  # noqa: E731
    last = cost(gradients.squared_norms(fn, parameters="c"))
    assert last < 1.1 * cost(fn)


def test_auxiliary_outputs():
    def fn(p, x):
        h = jnp.tanh(x @ p)
        return h.sum(1), dict(h=h, first=h[:, 0])

    p, x = jnp.ones((3, 2)) / 3, jnp.arange(12.0).reshape(4, 3) / 10
    (outputs, aux), norms = jax.jit(gradients.squared_norms(fn, has_aux=True))(p, x)
    _, plain = jax.jit(gradients.squared_norms(lambda p, x: fn(p, x)[0]))(p, x)
    np.testing.assert_allclose(norms.total, plain.total, rtol=1e-6)
    np.testing.assert_allclose(aux["h"], fn(p, x)[1]["h"], rtol=1e-6)
    np.testing.assert_allclose(aux["first"], fn(p, x)[1]["first"], rtol=1e-6)
    np.testing.assert_allclose(outputs, fn(p, x)[0], rtol=1e-6)
    groups = x.reshape(2, 2, 3)
    (_, aux), _ = gradients.grouped_gram(fn, has_aux=True)(p, groups, jnp.ones((2, 2), bool))
    assert aux["h"].shape == (2, 2, 2)
    with pytest.raises(ValueError, match="auxiliary output has shape"):
        gradients.squared_norms(lambda p, x: (fn(p, x)[0], 1.0), has_aux=True)(p, x)


def test_wrong_settings_are_refused():
    fn = lambda p, x: x @ p  # noqa: E731
    with pytest.raises(ValueError, match="chunk is 0"):
        gradients.output_squared_norms(fn, chunk=0)
    with pytest.raises(ValueError, match="tile is -1"):
        gradients.inner_products(fn, tile=-1)
    with pytest.raises(ValueError, match="max_norm is 0"):
        gradients.clipped_gradients(fn, 0.0)
