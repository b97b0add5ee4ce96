import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import capture


def tied_model(p, ids):
    h = jnp.tanh(p["embedding"][ids] @ p["w"]) * p["scale"] + p["shift"]
    logits = jax.nn.log_softmax(h @ p["embedding"].T)
    return jnp.take_along_axis(logits, ids[..., None], -1)[..., 0].sum(-1)


SPEC = jax.ShapeDtypeStruct
PARAMS = dict(
    embedding=SPEC((512, 64), jnp.float32),
    w=SPEC((64, 64), jnp.float32),
    scale=SPEC((64,), jnp.float32),
    shift=SPEC((64,), jnp.float32),
    unused=SPEC((3,), jnp.float32),
    steps=SPEC((), jnp.int32),
)
BATCH = SPEC((8, 16), jnp.int32)


def test_report_names_every_parameter():
    report = capture.uses(tied_model, PARAMS, BATCH)
    assert [p.path for p in report.parameters] == sorted(PARAMS)
    assert report["embedding"].kinds == ("embedding", "dense")
    assert report["embedding"].form == "centred gram"
    assert report["w"].kinds == ("dense",)
    assert report["scale"].kinds == ("scale",)
    assert report["shift"].kinds == ("shift",)
    assert report["unused"].form == "unused"
    assert report["steps"].form == "not differentiable"
    assert report.fallbacks == ()
    text = str(report)
    assert "fallbacks: none" in text
    assert all(path in text for path in PARAMS)
    assert "<table>" in report._repr_html_()


def test_form_follows_cost():
    fn = lambda p, x: jnp.tanh(x @ p).sum((1, 2))  # noqa: E731
    # R (d_in + d_out) against d_in d_out, for 64 x 64: Gram below 32 rows
    report = capture.uses(fn, SPEC((64, 64), "float32"), SPEC((2, 31, 64), "float32"))
    assert report[""].form == "centred gram"
    # nothing to centre with one row; not worth it in half precision
    for dtype, rows in (("float32", 1), ("bfloat16", 31)):
        report = capture.uses(fn, SPEC((64, 64), dtype), SPEC((2, rows, 64), dtype))
        assert report[""].form == "gram"
    report = capture.uses(fn, SPEC((64, 64), "float32"), SPEC((2, 33, 64), "float32"))
    assert report[""].form == "materialised"


def test_fallback_is_named():
    fn = lambda p, x: jax.lax.sort(x * 0 + jnp.cumsum(p)).sum(-1) + jax.nn.relu(x).sum(-1)  # noqa: E731
    assert capture.uses(fn, SPEC((4,), "float32"), SPEC((2, 4), "float32")).fallbacks == ()

    def switch(p, x):
        return jax.vmap(lambda r: jax.lax.cond(r.sum() > 0, lambda: p, lambda: -p))(x).sum(-1)

    report = capture.uses(switch, SPEC((4,), "float32"), SPEC((2, 4), "float32"))
    assert report.fallbacks == ("",)
    assert "fallbacks: " in str(report)


def test_unknown_path_lists_the_known():
    with pytest.raises(KeyError, match="the parameters are embedding"):
        capture.uses(tied_model, PARAMS, BATCH)["head"]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda p, x: x @ p, r"returned shape \(1, 3\)"),
        (lambda p, x: (x @ p).sum(), r"returned shape \(\)"),
    ],
)
def test_wrong_outputs_are_refused(fn, message):
    with pytest.raises(ValueError, match=message):
        capture.sitewise(fn, lambda g: g.materialise())(jnp.ones((2, 3)), jnp.ones((4, 2)))


def test_wrong_batches_are_refused():
    run = capture.sitewise(lambda p, b: b["x"] @ p, lambda g: g.materialise())
    with pytest.raises(ValueError, match="disagree"):
        run(jnp.ones(2), {"x": jnp.ones((4, 2)), "y": jnp.ones(3)})
    with pytest.raises(ValueError, match="is a scalar"):
        run(jnp.ones(2), {"x": jnp.ones((4, 2)), "y": jnp.ones(())})
    with pytest.raises(ValueError, match="no arrays"):
        run(jnp.ones(2), {})


def test_own_statistic_across_examples():
    """The gradient noise scale's two ingredients, from one pass (McCandlish et al. 2018)."""

    def statistic(gradient):
        dense = gradient.materialise().reshape(gradient.num_examples, -1)
        return {"mean_square": (dense**2).sum(1).mean(), "square_mean": (dense.mean(0) ** 2).sum()}

    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 2)), rng.normal(size=(5, 4, 3))
    fn = lambda p, x: (jnp.tanh(x @ p) ** 2).sum((1, 2))  # noqa: E731
    with jax.enable_x64(True):
        _, out = capture.sitewise(fn, statistic)(jnp.asarray(w), jnp.asarray(x))
    t = np.tanh(x @ w)
    grads = np.einsum("ntd,ntk->ndk", x, 2 * t * (1 - t**2)).reshape(5, -1)
    np.testing.assert_allclose(out[""]["mean_square"], (grads**2).sum(1).mean(), rtol=1e-10)
    np.testing.assert_allclose(out[""]["square_mean"], (grads.mean(0) ** 2).sum(), rtol=1e-10)


def test_integer_statistics_are_refused():
    run = capture.sitewise(lambda p, x: x @ p, lambda g: jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match="expected floating"):
        run(jnp.ones(2), jnp.ones((4, 2)))
