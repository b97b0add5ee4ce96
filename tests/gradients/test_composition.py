"""Inside the user's own transformations, through opaque kernels, and without global state."""

import functools
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl

from fishjax import capture, gradients
from fishjax.gradients.reference import dense_squared_norms


def model(p, x):
    h = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"])[0]
    return jax.nn.log_softmax(h @ p["head"])[..., 0].sum(1)


@pytest.fixture
def problem():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        w = lambda *s: jnp.asarray(rng.normal(size=s) / 2)  # noqa: E731
        yield dict(layers=w(2, 4, 4), head=w(4, 3)), w(6, 3, 4)


def test_inside_scan(problem):
    params, x = problem
    norms = gradients.squared_norms(model)
    _, scanned = jax.jit(lambda: lax.scan(lambda c, b: (c, norms(params, b)), 0, x[:, None]))()
    _, expected = dense_squared_norms(model)(params, x)
    np.testing.assert_allclose(scanned[1].total[:, 0], expected.total, rtol=1e-10)


def test_inside_vmap_over_an_ensemble(problem):
    params, x = problem
    members = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p, -p]), params)
    run = jax.jit(jax.vmap(gradients.squared_norms(model), in_axes=(0, None)))
    outputs, norms = run(members, x)
    assert outputs.shape == (3, 6)
    for i in range(3):
        member = jax.tree.map(lambda p, i=i: p[i], members)
        _, expected = dense_squared_norms(model)(member, x)
        np.testing.assert_allclose(norms.total[i], expected.total, rtol=1e-10)


def test_lowered_ahead_of_time(problem):
    params, x = problem
    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (params, x))
    compiled = jax.jit(gradients.squared_norms(model)).lower(*shapes).compile()
    _, norms = compiled(params, x)
    _, expected = dense_squared_norms(model)(params, x)
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-10)
    assert compiled.cost_analysis()["flops"] > 0
    assert compiled.memory_analysis().temp_size_in_bytes > 0


@pytest.mark.parametrize("weights", [None, "total"], ids=["reverse", "hessian-vector"])
def test_differentiating_through(problem, weights):
    params, x = problem
    ours = lambda p, x: gradients.squared_norms(model)(p, x)[1].total.sum()  # noqa: E731
    dense = lambda p, x: dense_squared_norms(model)(p, x)[1].total.sum()  # noqa: E731
    if weights:
        direction = jax.tree.map(jnp.ones_like, params)
        push = lambda f: jax.jvp(jax.grad(f), (params, x), (direction, x))[1]  # noqa: E731
        ours, dense = (jax.tree.leaves(jax.jit(lambda f=f: push(f))()) for f in (ours, dense))
    else:
        ours, dense = (
            jax.tree.leaves(jax.jit(jax.grad(f, (0, 1)))(params, x)) for f in (ours, dense)
        )
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_shard_map_over_the_examples(problem):
    params, x = problem
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    run = jax.shard_map(
        lambda p, x: gradients.squared_norms(model)(p, x)[1].total,
        mesh=mesh,
        in_specs=(spec(), spec("data")),
        out_specs=spec("data"),
        check_vma=False,
    )
    _, expected = dense_squared_norms(model)(params, x)
    np.testing.assert_allclose(jax.jit(run)(params, x), expected.total, rtol=1e-10)


def opaque(x):
    """A kernel that no rule of ours could look into."""

    def double(ref, out):
        out[...] = 2 * ref[...]

    call = pl.pallas_call(double, jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)
    kernel = jax.custom_vjp(call)
    kernel.defvjp(lambda x: (call(x), None), lambda _, g: (call(g),))
    return kernel(x)


def test_opaque_kernels_pass_through(problem):
    params, x = problem
    fn = lambda p, x: model(p, opaque(jnp.sin(x)))  # noqa: E731
    plain = lambda p, x: model(p, 2 * jnp.sin(x))  # noqa: E731
    coverage = capture.uses(fn, params, x)
    assert coverage.fallbacks == ()
    _, norms = jax.jit(gradients.squared_norms(fn))(params, x)
    _, expected = dense_squared_norms(plain)(params, x)
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-10)


def test_branches_keep_the_factored_form():
    """Dense layers inside `switch` are not fallbacks, whether taken by data or by a constant."""
    params = dict(a=jnp.ones((6, 6)) / 6, b=jnp.eye(6))

    def row(p, x):
        branches = [lambda h: jnp.tanh(h @ p["a"]), lambda h: jnp.tanh(h @ p["b"] @ p["a"])]
        return lax.switch((x.sum() > 0).astype(int), branches, x).sum()

    fn = jax.vmap(row, (None, 0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    coverage = capture.uses(fn, params, x)
    assert coverage.fallbacks == ()
    assert coverage["a"].kinds == ("dense", "dense")
    _, norms = jax.jit(gradients.squared_norms(fn))(params, x)
    _, expected = dense_squared_norms(fn)(params, x)
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-5)


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_branch_not_taken_gives_no_gradient(how):
    """Not even where its derivative is infinite, as in `jax.grad`."""
    params = dict(a=jnp.ones((3, 3)) / 3, b=jnp.ones(3))

    def row(p, x):
        def taken():
            return jnp.sqrt(jnp.abs(x @ p["a"] * p["b"])).sum()

        def not_taken():
            return jnp.sum(x @ p["a"])

        return lax.cond(x.sum() > 0, taken, not_taken)

    if how == "vmap":
        many = jax.vmap(row, (None, 0))
    else:
        many = lambda p, x: lax.map(functools.partial(row, p), x)  # noqa: E731
    x = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5], [-1.0, 0.0, 0.0]])
    coverage = capture.uses(many, params, x)
    assert coverage.fallbacks == ()
    _, norms = jax.jit(gradients.squared_norms(many))(params, x)
    _, expected = dense_squared_norms(many)(params, x)
    assert np.all(np.isfinite(expected.total))
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-5)


def halvings(w, x):
    """A loop of unknown length that depends on a parameter."""
    return lax.while_loop(lambda v: jnp.abs(v).max() > 0.1, lambda v: v * w / 2, x)


def test_a_loop_of_unknown_length_is_refused_by_path_and_primitive():
    params = dict(loop=dict(w=jnp.array(0.9)), v=jnp.array(2.0))
    x = jnp.arange(1.0, 4.0)
    through = lambda p, x: jax.vmap(lambda r: p["v"] * halvings(p["loop"]["w"], r))(x)  # noqa: E731
    with pytest.raises(ValueError, match=r"'loop/w' passes through `while`"):
        jax.jit(gradients.squared_norms(through))(params, x)
    _, norms = jax.jit(gradients.squared_norms(through, parameters="v"))(params, x)
    _, expected = dense_squared_norms(lambda v, x: through({**params, "v": v}, x))(params["v"], x)
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-6)


def test_a_loop_whose_gradient_is_stopped_is_accepted():
    params = dict(w=jnp.array(0.9), v=jnp.array(2.0))
    x = jnp.arange(1.0, 4.0)

    def fn(p, x):
        return jax.vmap(lambda r: p["v"] * p["w"] * lax.stop_gradient(halvings(p["w"], r)))(x)

    _, norms = jax.jit(gradients.squared_norms(fn))(params, x)
    _, expected = dense_squared_norms(fn)(params, x)
    np.testing.assert_allclose(norms.total, expected.total, rtol=1e-6)


def test_uses_that_only_feed_auxiliary_outputs_are_not_uses():
    params = dict(w=jnp.ones((3, 3)), probe=jnp.ones((3, 2)))
    fn = lambda p, x: ((x @ p["w"]).sum(1), x @ p["w"] @ p["probe"])  # noqa: E731
    coverage = capture.uses(fn, params, jnp.ones((4, 3)), has_aux=True)
    assert coverage["w"].kinds == ("dense",)
    assert coverage["probe"].form == "unused"


def test_no_global_state(problem):
    params, x = problem
    before = dict(jax.config.values), dict(os.environ), logging.root.level
    handlers = list(logging.root.handlers)
    jax.jit(gradients.squared_norms(model))(params, x)
    capture.uses(model, params, x)
    assert (dict(jax.config.values), dict(os.environ), logging.root.level) == before
    assert logging.root.handlers == handlers


def test_every_statistic_asks_for_the_highest_precision():
    """Read from the program: also with a covariance, K outputs, and weighted sums."""
    params, x = dict(w=jnp.zeros((12, 12))), jnp.zeros((2, 3, 12))
    fn = lambda p, x: jnp.tanh(x @ p["w"]).sum((1, 2))  # noqa: E731
    for run in (gradients.squared_norms(fn), gradients.clipped_gradients(fn, 1.0)):
        text = jax.jit(run).lower(params, x).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        highest = [line for line in products if "HIGHEST" in line]
        assert highest
        assert len(products) - len(highest) == 1  # the model's own, in its own precision
