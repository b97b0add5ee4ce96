"""More cases for the table of `cases.py`: slices of one parameter, and stacks used repeatedly."""

import jax
import jax.numpy as jnp
from jax import lax

from .cases import CASES, D, L, N, T, V, case, normal, rms, table, tokens

__all__ = ["CASES"]


def rows(seed=9):
    return normal(seed, N, T, D, scale=1.0)


@case
def separate_slices():
    """Fused query, key and value, sliced before use: no entry is used twice."""

    def fn(p, x):
        q, k, v = x @ p["qkv"][0], x @ p["qkv"][1], jnp.einsum("ntd,ed->nte", x, p["qkv"][2])
        mixed = jnp.einsum("nts,nse->nte", jax.nn.softmax(jnp.einsum("nte,nse->nts", q, k)), v)
        gate, up = mixed @ p["mlp"][:, :5], mixed @ p["mlp"][:, 5:]
        return (jax.nn.silu(gate) * up).sum((1, 2))

    return fn, dict(qkv=normal(1, 3, D, D), mlp=normal(2, D, 10)), rows()


@case
def overlapping_slices():
    def fn(p, x):
        return (jnp.tanh(x @ p[:, :6]) + jnp.sin(x @ p[:, 2:])).sum((1, 2))

    return fn, normal(1, D, 8), rows()


@case
def slices_of_slices():
    def fn(p, x):
        left = p[:4]
        h = jnp.tanh(x[..., :4] @ left[:, :3]) * jnp.tanh(x[..., 4:] @ left[:, 3:6])
        return (h @ p[4:7, :2]).sum((1, 2)) + jnp.tanh(x @ p[:, 7:]).sum((1, 2))

    return fn, normal(1, D, 8), rows()


@case
def sliced_table():
    """Rows of two parts of one table, and its first part again as an output layer."""

    def fn(p, ids):
        h = p[:6][ids % 6] * p[6:][ids % (V - 6)]
        return jax.nn.log_softmax(h @ p[:6].T)[..., 0].sum(1)

    return fn, table(), tokens()


@case
def separate_parts_of_a_table():
    def fn(p, ids):
        return jnp.sin(p[:6][ids % 6] * p[6:][ids % (V - 6)]).sum((1, 2))

    return fn, table(), tokens()


@case
def stack_used_repeatedly():
    """The layers of an inner scan are constants of the outer one."""

    def fn(p, x):
        block = lambda h, w: (jnp.tanh(h @ w["w"] + w["b"]), None)  # noqa: E731
        return lax.fori_loop(0, 2, lambda _, h: lax.scan(block, h, p)[0], x).sum((1, 2))

    return fn, dict(w=normal(1, L, D, D), b=normal(2, L, D)), rows()


@case
def tied_with_an_axis_of_length_one():
    def fn(p, ids):
        h = jnp.tanh(p[:, 0][ids])
        return jax.nn.log_softmax(h @ p[:, 0].T)[..., 0].sum(1)

    return fn, normal(1, V, 1, D), tokens()


def block_used_twice(h, p):
    a = jnp.tanh(rms(h, p["norm"]) @ p["w"] + p["bias"])
    b = jnp.tanh(rms(a, p["norm"]) @ p["w"].T + p["bias"])
    c = a[:, :2] @ p["rows"] + h[:, 1:3] * p["gain"]
    d = b @ p["fused"][:, :D] + jnp.tanh(a @ p["fused"][:, D:])
    once_more = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))(d, p["rows"])
    return h + once_more.at[:, :2].add(c) * p["gain"]


def twice_params(seed, *layers):
    return dict(
        w=normal(seed, *layers, D, D),
        bias=normal(seed + 1, *layers, D),
        norm=1 + normal(seed + 2, *layers, D),
        rows=normal(seed + 3, *layers, D, D),
        fused=normal(seed + 4, *layers, D, 2 * D),
        gain=normal(seed + 5, *layers),
    )


@case
def used_twice_in_a_block():
    def fn(p, x):
        step = jax.checkpoint(lambda h, layer: (block_used_twice(h, layer), None))
        h, _ = lax.scan(step, x, p["layers"])
        return (jnp.tanh(h) ** 2).sum((1, 2))

    return fn, dict(layers=twice_params(1, L)), normal(9, N, T, D)


@case
def used_twice_in_a_block_of_two_scans():
    def fn(p, x):
        def inner(h, layer):
            return block_used_twice(h, layer), None

        def outer(h, layers):
            h, _ = lax.scan(inner, h, layers)
            return jnp.tanh(h), None

        h, _ = lax.scan(outer, x, p["layers"])
        return h.sum((1, 2))

    return fn, dict(layers=twice_params(1, 2, 3)), normal(9, N, T, D)
