"""Small models with every kind of layer, and their Fishers by autodiff in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fishjax.likelihoods import Bernoulli, Categorical, Examples, Gaussian
from fishjax.trees import flatten_with_paths

N, T, V, D, H = 6, 3, 7, 4, 5


def normal(seed, *shape, scale=0.5):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale)


def integers(seed, high, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(0, high, shape))


def mlp():
    """One position an example."""
    model = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["head"]  # noqa: E731
    params = dict(w=normal(1, D, H), b=normal(2, H), head=normal(3, H, 3))
    return model, Categorical(), params, Examples(normal(4, N, D, scale=1.0), integers(5, 3, N))


def language():
    """Embedding, scanned layers, positions that mix, norm scale, head."""

    def model(p, ids):
        h = p["embedding"][ids]
        h, _ = lax.scan(lambda h, w: (h + jnp.tanh(h @ w["w"] + w["b"]), None), h, p["layers"])
        h = jnp.cumsum(h, axis=1)
        return (jnp.tanh(h @ p["up"]) * p["scale"]) @ p["head"]

    params = dict(
        embedding=normal(1, V, D),
        layers=dict(w=normal(2, 2, D, D), b=normal(3, 2, D)),
        up=normal(4, D, H),
        scale=1 + normal(5, H),
        head=normal(6, H, V),
    )
    return model, Categorical(), params, Examples(integers(7, V, N, T), integers(8, V, N, T))


def tied():
    def model(p, ids):
        return jnp.tanh(p["embedding"][ids] @ p["w"]) @ p["embedding"].T

    params = dict(embedding=normal(1, V, D), w=normal(2, D, D))
    return model, Categorical(), params, Examples(integers(3, V, N, T), integers(4, V, N, T))


def images():
    """A convolution and a pooled output with unequal variances."""

    def model(p, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        h = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.tanh(h + p["bias"]).mean((1, 2)) @ p["head"]

    params = dict(kernel=normal(1, 2, 2, 2, 3), bias=normal(2, 3), head=normal(3, 3, 2))
    examples = Examples(normal(4, N, 4, 3, 2, scale=1.0), normal(5, N, 2))
    return model, Gaussian(jnp.array([0.5, 2.0])), params, examples


def experts():
    """Per-expert weights (blocks), gates of soft-max."""

    def model(p, x):
        gate = jax.nn.softmax(x @ p["router"])
        hidden = jnp.tanh(jnp.einsum("netd,edf->netf", x[:, None] * p["scale"], p["in"]))
        out = jnp.einsum("netf,efd->netd", hidden, p["out"])
        return jnp.einsum("netd,nte->nd", out, gate)

    params = dict(
        router=normal(1, D, 2),
        scale=1 + normal(2, 2, 1, D),
        **{"in": normal(3, 2, D, 3), "out": normal(4, 2, 3, 2)},
    )
    targets = integers(6, 2, N, 2).astype(float)
    return model, Bernoulli(), params, Examples(normal(5, N, T, D, scale=1.0), targets)


PROBLEMS = dict(mlp=mlp, language=language, tied=tied, images=images, experts=experts)


@functools.cache
def gradients(name, targets, unit="sequences"):
    """(`{path: [M, P]}`, N): the rows whose mean outer product over N is the Fisher, in float64.

    By `jacrev` of log-probabilities, or of outputs and an explicit Hessian root; not by the
    likelihoods' columns.
    """
    with jax.enable_x64(True):
        model, likelihood, params, examples = PROBLEMS[name]()
        inputs, observed, _ = examples
        if targets == "empirical":

            def rows(params, row, target):
                log_probs = likelihood.log_probs(model(params, row[None]), target[None])[0]
                return log_probs.sum()[None] if unit == "sequences" else log_probs.ravel()

            over = observed
        else:

            def root(row):
                return _hessian_root(likelihood, model(params, row[None])[0])

            def rows(params, row, root):
                return root.T @ model(params, row[None]).ravel()

            over = jax.jit(jax.vmap(root))(inputs)
        jacobian = jax.jit(jax.vmap(jax.jacrev(rows), (None, 0, 0)))(params, inputs, over)
        paths, leaves, _ = flatten_with_paths(jacobian)
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
        flat = {
            path: np.asarray(leaf).reshape(-1, int(np.prod(shape)))
            for path, leaf, shape in zip(paths, leaves, shapes, strict=True)
        }
        log_probs = jax.eval_shape(likelihood.log_probs, model(params, inputs), observed)
        positions = int(np.prod(log_probs.shape[1:])) if unit == "tokens" else 1
        return flat, N * positions


def _hessian_root(likelihood, z):
    """A root of the expected Hessian of the negative log-likelihood, `[numel, numel]`."""
    flat = z.ravel()
    if isinstance(likelihood, Gaussian):
        return jnp.diag(1 / jnp.sqrt(jnp.broadcast_to(likelihood.variance, z.shape).ravel()))
    if isinstance(likelihood, Bernoulli):
        p = jax.nn.sigmoid(flat)
        return jnp.diag(jnp.sqrt(p * (1 - p)))
    p = jax.nn.softmax(z.reshape(-1, z.shape[-1]))
    blocks = [jnp.linalg.eigh(jnp.diag(q) - jnp.outer(q, q)) for q in p]
    return jax.scipy.linalg.block_diag(
        *(vectors * jnp.sqrt(jnp.maximum(values, 0)) for values, vectors in blocks)
    )


def fisher(name, targets, unit="sequences"):
    """(the whole matrix, `{path: block}`)."""
    flat, count = gradients(name, targets, unit)
    rows = np.concatenate(list(flat.values()), axis=1)
    return rows.T @ rows / count, {path: g.T @ g / count for path, g in flat.items()}


def stacked(path):
    """The number of layers or experts whose factors are their own."""
    return 2 if path.startswith("layers") or path in ("in", "out") else 1


def own_blocks(path, block):
    """A block without what is between its layers or experts."""
    kept, size = np.zeros_like(block), len(block) // stacked(path)
    for i in range(stacked(path)):
        part = slice(i * size, (i + 1) * size)
        kept[part, part] = block[part, part]
    return kept


def run(estimator, params, examples, key=None):
    """All passes over one batch; (operator, state)."""
    state = estimator.init(params, examples)
    update = jax.jit(estimator.update)
    for i in range(estimator.passes):
        if i:
            state = estimator.advance(state)
        state = update(state, params, examples, key)
    return estimator.finalize(state), state
