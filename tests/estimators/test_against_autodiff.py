"""Every estimator on every problem against the Fisher by autodiff, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import estimators, operators
from fishjax.estimators import solvers, targets, units
from fishjax.likelihoods import Examples
from fishjax.trees import flatten_with_paths

from .problems import PROBLEMS, fisher, own_blocks, run

TARGETS = dict(empirical=targets.empirical(), exact=targets.exact())
SOLVERS = dict(lanczos=solvers.lanczos(12), power=solvers.power(60))
UNITS = dict(sequences=units.sequences(), tokens=units.tokens())

every = pytest.mark.parametrize("name", PROBLEMS)
both = pytest.mark.parametrize("kind", TARGETS)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def leaves_of(params):
    paths, leaves, _ = flatten_with_paths(params)
    return dict(zip(paths, leaves, strict=True))


@functools.cache
def dense_blocks(name):
    """The matrices `{path: block}` of an operator, one program an operator's type."""
    params = leaves_of(PROBLEMS[name]()[2])
    return jax.jit(
        lambda factors: {
            path: operators.to_dense(factors[path], like=leaf) for path, leaf in params.items()
        }
    )


def relative_errors(operator, name, kind):
    """`{path: Frobenius error relative to the block without terms between layers or experts}`."""
    errors, found = {}, dense_blocks(name)(operator.factors)
    for path, block in fisher(name, kind)[1].items():
        exact = own_blocks(path, block)
        errors[path] = np.linalg.norm(found[path] - exact) / np.linalg.norm(exact)
    return errors


@functools.cache
def kfac_of(name, kind):
    model, likelihood, params, examples = PROBLEMS[name]()
    return run(estimators.kfac(model, likelihood, targets=TARGETS[kind]), params, examples)[0]


@functools.cache
def kpsvd_of(name, rank, solver):
    model, likelihood, params, examples = PROBLEMS[name]()
    estimator = estimators.kpsvd(
        model, likelihood, rank=rank, solver=SOLVERS[solver], targets=targets.empirical()
    )
    return run(estimator, params, examples)[0]


@every
@both
@pytest.mark.parametrize("unit", UNITS)
def test_dense_and_diagonal(name, kind, unit):
    model, likelihood, params, examples = PROBLEMS[name]()
    settings = dict(targets=TARGETS[kind], unit=UNITS[unit], chunk=4)
    expected, blocks = fisher(name, kind, unit)
    found, _ = run(estimators.dense(model, likelihood, **settings), params, examples)
    close(operators.to_dense(found, like=params), expected)
    found, _ = run(estimators.diagonal(model, likelihood, **settings), params, examples)
    for path, block in blocks.items():
        close(np.ravel(found.tree[path]), np.diag(block))
    found, _ = run(estimators.isotropic(model, likelihood, **settings), params, examples)
    close(found.scale, np.trace(expected) / len(expected))


@every
def test_block_diagonal(name):
    model, likelihood, params, examples = PROBLEMS[name]()

    def groups(chosen):
        """Layers and experts are blocks of their own."""
        axes = {p: (0,) if p.startswith("layers") or p in ("in", "out") else () for p in chosen}
        return {
            p: operators.dense_leaves({p: leaf}, block_axes=axes[p]) for p, leaf in chosen.items()
        }

    estimator = estimators.block_diagonal(
        model, likelihood, groups=groups, targets=targets.empirical()
    )
    found, _ = run(estimator, params, examples)
    for path, block in fisher(name, "empirical")[1].items():
        like = {path: leaves_of(params)[path]}
        close(operators.to_dense(found.blocks[path], like=like), own_blocks(path, block))


def test_a_block_over_all_parameters_of_a_layer():
    model, likelihood, params, examples = PROBLEMS["language"]()
    of_layers = lambda chosen: {  # noqa: E731
        "layers": operators.dense_leaves(chosen, block_axes=(0,))
    }
    estimator = estimators.block_diagonal(
        model, likelihood, groups=of_layers, targets=targets.empirical(), parameters="layers/*"
    )
    found, _ = run(estimator, params, examples)
    found = found.blocks["layers"].matrix
    assert found.shape == (2, 20, 20)
    whole = operators.to_dense(
        run(
            estimators.dense(model, likelihood, targets=targets.empirical(), parameters="layers/*"),
            params,
            examples,
        )[0],
        like=dict(layers=params["layers"]),
    )
    of_layer = [np.r_[4 * i : 4 * i + 4, 8 + 16 * i : 8 + 16 * i + 16] for i in range(2)]
    for i in range(2):
        close(found[i], whole[np.ix_(of_layer[i], of_layer[i])])


@every
@both
def test_ekfac_keeps_the_trace_and_beats_kfac(name, kind):
    model, likelihood, params, examples = PROBLEMS[name]()
    kfac = kfac_of(name, kind)
    ekfac, _ = run(estimators.ekfac(model, likelihood, targets=TARGETS[kind]), params, examples)
    before, after = (relative_errors(o, name, kind) for o in (kfac, ekfac))
    for path, block in fisher(name, kind)[1].items():
        close(jnp.sum(ekfac.factors[path].eigenvalues), np.trace(block))
        assert after[path] <= before[path] + 1e-9, path


def rearranged(path, block, shape):
    """Z of every layer or expert, from the block."""
    size = len(block) // (2 if len(shape) == 3 else 1)
    rows, columns = shape[-2:]
    for i in range(len(block) // size):
        part = block[i * size : (i + 1) * size, i * size : (i + 1) * size]
        tensor = part.reshape(rows, columns, rows, columns).transpose(0, 2, 1, 3)
        yield tensor.reshape(rows * rows, columns * columns)


def symmetric_part(z, rows, columns):
    """Z on symmetric matrices: with weight sharing some of its pairs are skew."""
    z = z.reshape(rows, rows, columns, columns)
    return (0.5 * (z + z.transpose(1, 0, 2, 3))).reshape(rows * rows, -1)


@pytest.mark.parametrize(("name", "path"), [("language", "head"), ("language", "layers/w"),
                                            ("experts", "in"), ("mlp", "w")])  # fmt: skip
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_kpsvd_is_the_truncated_svd(name, path, rank):
    """The error is that of the dropped singular values; of symmetric pairs beyond the second."""
    shape = leaves_of(PROBLEMS[name]()[2])[path].shape
    for solver in SOLVERS if rank == 2 else ["lanczos"]:
        error = relative_errors(kpsvd_of(name, rank, solver), name, "empirical")[path]
        block = own_blocks(path, fisher(name, "empirical")[1][path])
        dropped = total = 0.0
        for z in rearranged(path, block, shape):
            sigma = np.linalg.svd(symmetric_part(z, *shape[-2:]), compute_uv=False)
            dropped += np.sum(z**2) - np.sum(sigma[:rank] ** 2)
            total += np.sum(z**2)
        assert error == pytest.approx(np.sqrt(dropped / total), rel=1e-5)


@every
def test_orderings(name):
    model, likelihood, params, examples = PROBLEMS[name]()
    empirical = targets.empirical()

    def errors(**settings):
        estimator = estimators.kpsvd(model, likelihood, targets=empirical, **settings)
        return relative_errors(run(estimator, params, examples)[0], name, "empirical")

    kfac = relative_errors(kfac_of(name, "empirical"), name, "empirical")
    one, two, corrected = errors(rank=1), errors(rank=2), errors(rank=2, corrected=True)
    if name == "tied":
        # the rearranged Fisher of a parameter with several uses lacks the terms between them
        del kfac["embedding"]
    for path, error in kfac.items():
        assert one[path] <= error + 1e-6, path
        assert two[path] <= corrected[path] + 1e-6, path
        assert corrected[path] <= error + 1e-6, path
        assert two[path] <= one[path] + 1e-6, path


@both
def test_a_single_pass_keeps_the_trace(kind):
    model, likelihood, params, examples = PROBLEMS["language"]()
    estimator = estimators.kpsvd(
        model, likelihood, rank=1, solver=solvers.single_pass(), targets=TARGETS[kind]
    )
    assert estimator.passes == 1
    found, _ = run(estimator, params, examples)
    for path, block in fisher("language", kind)[1].items():
        close(operators.trace(found.factors[path], like=leaves_of(params)[path]), np.trace(block))


def test_positions_alone_equal_the_whole_where_they_do_not_mix():
    """With exact targets the terms between positions that do not mix vanish."""
    model = lambda p, x: jnp.tanh(x @ p["w"]) @ p["head"]  # noqa: E731
    _, likelihood, params, _ = PROBLEMS["mlp"]()
    params = {name: params[name] for name in ("w", "head")}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 4)))
    found = []
    for positions in (estimators.positions.whole(), estimators.positions.positionwise()):
        estimator = estimators.kpsvd(
            model, likelihood, rank=2, positions=positions, targets=targets.exact()
        )
        found.append(run(estimator, params, Examples(x))[0])
    for path, leaf in params.items():
        a, b = (operators.to_dense(f.factors[path], like=leaf) for f in found)
        close(a, b, rtol=1e-8)
