"""The top of the spectrum by every solver against the dense Fisher, in float64."""

import functools

import jax
import numpy as np
import pytest

from fishjax import estimators, operators
from fishjax.estimators import averages, subspaces, targets
from fishjax.likelihoods import Examples
from fishjax.trees import flatten_with_paths

from .problems import PROBLEMS, N, fisher, gradients, run

SOLVERS = dict(
    merging=subspaces.merging(), nystrom=subspaces.nystrom(), lanczos=subspaces.lanczos(12)
)

every = pytest.mark.parametrize("solver", SOLVERS)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def found_by(solver, rank, kind="empirical", *, remainder=False, name="language"):
    model, likelihood, params, examples = PROBLEMS[name]()
    chosen = dict(empirical=targets.empirical(), exact=targets.exact())[kind]
    estimator = estimators.low_rank(
        model, likelihood, rank=rank, solver=solver, remainder=remainder, targets=chosen
    )
    return run(estimator, params, examples)[0], leaves_of(params)


def leaves_of(params):
    paths, leaves, _ = flatten_with_paths(params)
    return dict(zip(paths, leaves, strict=True))


def dense(operator, like):
    return np.asarray(jax.jit(functools.partial(operators.to_dense, like=like))(operator))


def truncated(matrix, rank):
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, -rank:] * values[-rank:] @ vectors[:, -rank:].T


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@every
@pytest.mark.parametrize("rank", [2, 6])
def test_the_truncated_spectrum_of_six_directions(solver, rank):
    expected, _ = fisher("language", "empirical")
    operator, like = found_by(SOLVERS[solver], rank)
    close(dense(operator, like), truncated(expected, rank))
    if rank == 2:
        operator, like = found_by(SOLVERS[solver], rank, remainder=True)
        close(operators.trace(operator, like=like), np.trace(expected))


@pytest.mark.parametrize("name", ["images", "experts"])
def test_more_vectors_than_directions_are_zeros(name):
    """Too few examples for the rank: the operator is exact, its trace too."""
    rows, _ = gradients(name, "empirical")
    assert len(next(iter(rows.values()))) == N
    expected, _ = fisher(name, "empirical")
    for solver in SOLVERS.values():
        operator, like = found_by(solver, N + 4, remainder=True, name=name)
        close(dense(operator, like), expected)
        flat = np.concatenate(
            [np.asarray(v).reshape(N + 4, -1) for v in operator.basis.values()], 1
        )
        norms = np.linalg.norm(flat, axis=1)
        assert np.all(norms[N:] <= 1e-7 * norms[0])


@pytest.mark.parametrize("iterations", [0, 4])
def test_a_sketch_is_below_the_fisher_and_near_its_best(iterations):
    expected, _ = fisher("language", "exact")
    rank = 6
    solver = subspaces.nystrom(oversample=4, iterations=iterations)
    operator, like = found_by(solver, rank, "exact")
    found = dense(operator, like)
    scale = np.linalg.norm(expected)
    assert np.linalg.eigvalsh(expected - found).min() > -1e-12 * scale
    error = np.linalg.norm(expected - found)
    best = np.linalg.norm(expected - truncated(expected, rank))
    assert best <= error * (1 + 1e-12)
    assert error <= (1.001 if iterations else 3) * best


def test_lanczos_converges_from_the_top():
    expected, _ = fisher("language", "exact")
    operator, like = found_by(subspaces.lanczos(30), 4, "exact")
    close(dense(operator, like), truncated(expected, 4), rtol=1e-8)


@pytest.mark.parametrize("solver", ["nystrom", "lanczos"])
def test_workers_merge_exactly(solver):
    model, likelihood, params, examples = PROBLEMS["mlp"]()
    estimator = estimators.low_rank(
        model, likelihood, rank=3, solver=SOLVERS[solver], targets=targets.exact()
    )
    halves = [Examples(*(x[i::2] for x in examples[:2])) for i in range(2)]
    state, update = estimator.init(params, examples), jax.jit(estimator.update)
    for i in range(estimator.passes):
        state = estimator.advance(state) if i else state
        parts = [update(state, params, half, None) for half in halves]
        state = estimators.merge(estimator, *parts)
    like = leaves_of(params)
    whole, _ = run(estimator, params, examples)
    close(dense(estimator.finalize(state), like), dense(whole, like), rtol=1e-8)


def test_one_pass_moving_averages_and_chosen_parameters():
    model, likelihood, params, examples = PROBLEMS["mlp"]()
    average = averages.ema(0.5)
    settings = dict(targets=targets.exact(), parameters=["w", "b"], average=average)
    sketch = estimators.low_rank(
        model, likelihood, rank=30, solver=subspaces.nystrom(iterations=0), **settings
    )
    exact = estimators.dense(model, likelihood, **settings)
    states = [e.init(params, examples) for e in (sketch, exact)]
    updates = [jax.jit(e.update) for e in (sketch, exact)]
    for part in (slice(0, 2), slice(2, 6)):
        batch = Examples(*(x[part] for x in examples[:2]))
        states = [u(s, params, batch, None) for u, s in zip(updates, states, strict=True)]
    found, expected = (e.finalize(s) for e, s in zip((sketch, exact), states, strict=True))
    assert set(found.basis) == {"w", "b"}
    like = {name: params[name] for name in ("b", "w")}
    close(dense(found, like), dense(expected, like), rtol=1e-8)


def test_refusals():
    model, likelihood, params, examples = PROBLEMS["mlp"]()
    with pytest.raises(ValueError, match="3 Lanczos steps for rank 4"):
        estimators.low_rank(model, likelihood, rank=4, solver=subspaces.lanczos(3))
    with pytest.raises(ValueError, match="expected neither negative"):
        subspaces.nystrom(oversample=-1)
    with pytest.raises(ValueError, match="expected at least 1"):
        subspaces.lanczos(0)
    estimator = estimators.low_rank(
        model, likelihood, rank=2, solver=subspaces.nystrom(), targets=targets.exact()
    )
    state = estimator.update(estimator.init(params, examples), params, examples, None)
    with pytest.raises(ValueError, match="1 of 2 passes are seen"):
        estimator.finalize(state)
    state = estimator.update(estimator.advance(state), params, examples, None)
    with pytest.raises(ValueError, match="all 2 passes are done"):
        estimator.advance(state)
