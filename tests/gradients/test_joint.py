"""Weights used several times in one block: also for several outputs and in a metric."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture, gradients, operators
from fishjax.gradients.reference import per_example_gradients

from .slices import CASES
from .test_covariance import covariance_of

NAMES = ("used_twice_in_a_block", "used_twice_in_a_block_of_two_scans")


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_finished_in_its_block(name):
    with jax.enable_x64(True):
        report = capture.uses(*CASES[name]())
    assert not report.fallbacks
    for row in report.parameters:
        if row.path != "layers/gain":  # a scalar meets arrays: its own sum of cotangents
            assert row.form != "accumulated", row
        assert len(row.kinds) == 2, row


@pytest.mark.parametrize("kind", ["diagonal", "kronecker"])
def test_metrics(kind):
    with jax.enable_x64(True):
        fn, params, batch = CASES[NAMES[0]]()
        params = {"layers": {n: params["layers"][n] for n in ("w", "rows", "fused")}}
        rest = {
            n: x for n, x in CASES[NAMES[0]]()[1]["layers"].items() if n not in params["layers"]
        }
        whole = lambda p, x: fn({"layers": {**rest, **p["layers"]}}, x)  # noqa: E731
        covariance = covariance_of(kind, params)
        _, grads = jax.jit(per_example_gradients(whole))(params, batch)
        images = jax.vmap(functools.partial(operators.multiply, covariance))(grads)
        expected = sum(
            np.sum(np.asarray(g * i).reshape(len(batch), -1), axis=1)
            for g, i in zip(jax.tree.leaves(grads), jax.tree.leaves(images), strict=True)
        )
        _, norms = jax.jit(gradients.squared_norms(whole, covariance=covariance))(params, batch)
    np.testing.assert_allclose(norms.total, expected, rtol=1e-9)


def test_several_outputs():
    with jax.enable_x64(True):
        _, params, batch = CASES[NAMES[0]]()

        def apply_fn(p, x):
            def step(h, layer):
                return h + jnp.tanh(jnp.tanh(h @ layer["w"]) @ layer["w"]), None

            return jax.lax.scan(step, x, p)[0].sum(1)[:, :3]

        layers = {"w": params["layers"]["w"]}
        _, gram = jax.jit(gradients.jacobian_gram(apply_fn))(layers, batch)
        jacobian = jax.vmap(jax.jacrev(lambda p, x: apply_fn(p, x[None])[0]), (None, 0))(
            layers, batch
        )
        flat = np.asarray(jacobian["w"]).reshape(len(batch), 3, -1)
    np.testing.assert_allclose(gram, flat @ np.swapaxes(flat, 1, 2), rtol=1e-9)
