"""Property: whatever the program, norms are those of `vmap(grad)`, parameter by parameter."""

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishjax import gradients

from .compare import assert_same_float64, dense_gradients
from .programs import SHAPES, WRAPPERS, build

STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(SHAPES)), st.sampled_from(WRAPPERS), st.booleans()),
    min_size=1,
    max_size=4,
)


def check(steps, seed=0):
    with jax.enable_x64(True):
        fn, params, batch = build(steps, seed)
        expected, grads = dense_gradients(fn, params, batch)
        outputs, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
        assert_same_float64(outputs, norms, expected, grads)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(STEPS, st.integers(0, 10))
def test_random_programs(steps, seed):
    check(steps, seed)


@pytest.mark.parametrize(
    "steps",
    [
        [(name, WRAPPERS[i % 4], False), ("dense", "plain", True)]
        for i, name in enumerate(sorted(SHAPES))
    ],
    ids=lambda steps: f"{steps[0][0]}-{steps[0][1]}",
)
def test_every_operation_once(steps):
    check(steps)
