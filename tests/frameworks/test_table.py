"""Every model of every framework against float64 `vmap(grad)`, parameter by parameter."""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from fishjax import capture, gradients

from ..gradients.compare import (
    assert_close_bfloat16,
    assert_close_float32,
    assert_same_float64,
    dense_gradients,
)

FRAMEWORKS = dict(
    pure="jax", linen="flax.linen", nnx="flax.nnx", equinox="equinox", haiku="haiku"
)  # fmt: skip
ALLOWED = pathlib.Path(__file__).parents[1] / "allowed_fallbacks.txt"


def load():
    """All builders by (framework, model), and a reason for every framework that is missing."""
    cases, missing = {}, {}
    for framework, package in FRAMEWORKS.items():
        try:
            pytest.importorskip(package, exc_type=ImportError)
        except pytest.skip.Exception as skipped:
            missing[framework] = str(skipped)
            continue
        module = importlib.import_module(f".{framework}", __package__)
        cases.update({(framework, name): build for name, build in module.CASES.items()})
    return cases, missing


CASES, MISSING = load()


def first(model):
    """The first framework that has the model: it is tested in the other precisions too."""
    return next(f for f, m in CASES if m == model)


def each(keys):
    """Parametrises by (framework, model); a missing framework is one skipped row."""
    rows = [pytest.param(*key, id="-".join(key)) for key in keys if key[0] not in MISSING]
    rows += [
        pytest.param(name, "", id=name, marks=pytest.mark.skip(reason=reason))
        for name, reason in MISSING.items()
    ]
    # scope: all tests of a model after each other, so that they share what is compiled
    return pytest.mark.parametrize(("framework", "model"), rows, scope="module")


def allowed_fallbacks():
    """{"framework/model": paths} of the file; a line without a reason is refused."""
    allowed = {}
    for line in ALLOWED.read_text().splitlines():
        entry, _, reason = line.partition("#")
        if not entry.strip():
            continue
        assert reason.strip(), f"{line!r} has no reason"
        case, _, path = entry.partition(":")
        allowed.setdefault(case.strip(), set()).add(path.strip())
    return allowed


@functools.lru_cache(maxsize=1)
def narrow_norms(framework, model):
    """(fn, float32 params and batch, jitted norms)."""
    fn, params, batch = CASES[framework, model]()
    return fn, params, batch, jax.jit(gradients.squared_norms(fn))


@each(CASES)
def test_norms(framework, model):
    """One test for both precisions, so that the reference is computed once."""
    with jax.enable_x64(True):
        fn, params, batch = CASES[framework, model]()
        expected = dense_gradients(fn, params, batch)
        outputs, norms = jax.jit(gradients.squared_norms(fn))(params, batch)
        assert outputs.dtype == jnp.float64
        assert_same_float64(outputs, norms, *expected)
    if framework != first(model):
        return
    with jax.enable_x64(False):
        _, params, batch, norms_of = narrow_norms(framework, model)
        outputs, norms = norms_of(params, batch)
        assert outputs.dtype == jnp.float32
        assert_close_float32(norms, expected[1])


@each([("nnx", "decoder_scan"), ("equinox", "decoder_scan")])
def test_verify_runs_eagerly(framework, model):
    """Transforms of frameworks must not see parameters of another trace level."""
    capture.verify(*CASES[framework, model]())


@each([(framework, model) for framework, model in CASES if first(model) == framework])
def test_bfloat16(framework, model):
    assert_close_bfloat16(*narrow_norms(framework, model))


@each(CASES)
def test_coverage(framework, model):
    fn, *arguments = CASES[framework, model]()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    report = capture.uses(fn, *shapes)
    assert set(report.fallbacks) <= allowed_fallbacks().get(f"{framework}/{model}", set()), str(
        report
    )
    assert all(p.form not in ("unused", "not differentiable") for p in report.parameters)


def test_allowed_fallbacks_name_cases():
    known = {f"{framework}/{model}" for framework, model in CASES}
    stale = {key for key in allowed_fallbacks() if key.split("/")[0] not in MISSING} - known
    assert not stale
