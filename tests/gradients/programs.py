"""Random small programs: a list of operations on a hidden state, some of which share weights."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WIDTH, VOCABULARY, TOKENS, EXAMPLES = 4, 5, 3, 3

# name of an operation -> shape of its weight
SHAPES = {
    "dense": (WIDTH, WIDTH),
    "transposed": (WIDTH, WIDTH),
    "heads": (2, WIDTH, 2),
    "bias": (WIDTH,),
    "norm": (WIDTH,),
    "scale": (),
    "positions": (TOKENS, WIDTH),
    "embed_again": (VOCABULARY, WIDTH),
    "soft_lookup": (VOCABULARY, WIDTH),
    "stacked": (2, WIDTH, WIDTH),
    "recurrent": (WIDTH, WIDTH),
    "repeated": (WIDTH, WIDTH),
    "convolution": (2, WIDTH, WIDTH),
    "lora": (2, WIDTH, 1),
    "exponential": (WIDTH, WIDTH),
    "weight_norm": (WIDTH, WIDTH),
    "branch": (WIDTH, WIDTH),
    "attention": (3, WIDTH, WIDTH),
    "sliced": (WIDTH, 2 * WIDTH),
}
WRAPPERS = ("plain", "jit", "remat", "scan_once")


def recurrent(h, w):
    step = lambda c, x: (jnp.tanh(x + c @ w),) * 2  # noqa: E731
    return lax.scan(step, jnp.zeros_like(h[:, 0]), h.swapaxes(0, 1))[1].swapaxes(0, 1)


def normalised(h):
    h = h - h.mean(-1, keepdims=True)
    return h * lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-3)


def attention(h, w):
    q, k, v = (jnp.einsum("ntd,de->nte", h, w[i]) for i in range(3))
    return jnp.einsum("nts,nse->nte", jax.nn.softmax(jnp.einsum("nte,nse->nts", q, k)), v)


def branch(h, w):
    def row(x):
        return lax.cond(x[0, 0] > 0, lambda x: jnp.tanh(x @ w), lambda x: x @ w.T, x)

    return jax.vmap(row)(h)


def convolution(h, w):
    return lax.conv_general_dilated(h, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def apply(name, h, w, ids):
    """One operation; `[N, T, D]` to `[N, T, D]`."""
    operations = {
        "dense": lambda: jnp.tanh(h @ w),
        "transposed": lambda: jnp.tanh(h @ w.T),
        "heads": lambda: jnp.einsum("ntd,hdk->nthk", h, w).reshape(h.shape),
        "bias": lambda: h + w,
        "norm": lambda: normalised(h) * w,
        "scale": lambda: h * w,
        "positions": lambda: h + w,
        "embed_again": lambda: h + w[ids],
        "soft_lookup": lambda: jax.nn.softmax(h @ w.T) @ w,
        "stacked": lambda: lax.scan(lambda c, w: (c + jnp.sin(c @ w), None), h, w)[0],
        "recurrent": lambda: recurrent(h, w),
        "repeated": lambda: lax.fori_loop(0, 3, lambda _, c: jnp.tanh(c @ w), h),
        "convolution": lambda: jnp.tanh(convolution(h, w)),
        "lora": lambda: h + (h @ w[0]) @ w[1].T,
        "exponential": lambda: jnp.tanh(h @ jnp.exp(-w)),
        "weight_norm": lambda: h @ (w / jnp.linalg.norm(w, axis=0)),
        "branch": lambda: branch(h, w),
        "attention": lambda: attention(h, w),
        "sliced": lambda: (h @ w)[..., :WIDTH] * jax.nn.sigmoid(h @ w[:, WIDTH:]),
    }
    return operations[name]()


def wrapped(how, operation, h, w):
    if how == "jit":
        return jax.jit(operation)(h, w)
    if how == "remat":
        return jax.checkpoint(operation)(h, w)
    if how == "scan_once":
        return lax.scan(lambda c, _: (operation(c, w), None), h, None, length=1)[0]
    return operation(h, w)


def build(steps, seed):
    """(fn, params, batch) of a program.

    Args:
      steps: `(operation, wrapper, shared)`; with `shared` the operation uses the latest earlier
        weight of the same shape, if there is one.
      seed: of weights and batch.
    """
    rng = np.random.default_rng(seed)
    params = {"table": jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)) / 2)}
    chosen = []
    for i, (name, how, shared) in enumerate(steps):
        shape = SHAPES[name]
        alike = [key for key, value in params.items() if value.shape == shape]
        key = alike[-1] if shared and alike else f"{i}_{name}"
        if key not in params:
            params[key] = jnp.asarray(1 / 2 + rng.normal(size=shape) / 2)
        chosen.append((name, how, key))
    ids = jnp.asarray(rng.integers(0, VOCABULARY, (EXAMPLES, TOKENS)))

    def fn(p, ids):
        h = p["table"][ids]
        for name, how, key in chosen:
            operation = lambda h, w, name=name: apply(name, h, w, ids)  # noqa: E731
            h = wrapped(how, operation, h, p[key])
        return jnp.sum(jnp.sin(h), axis=(1, 2))

    return fn, params, ids
