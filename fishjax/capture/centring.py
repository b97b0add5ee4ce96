r"""The centred form: a Gram that does not cancel.

Over T near-constant rows `a_t` with cotangents `b_t` that sum to zero, the products of the Gram
form are T² times larger than the norm they add up to, and float32 loses 1-2 % at T = 1024
(methods 2). With the mean row $\bar a$ and $s = \sum_t b_t$ the gradient is
$\sum_t (a_t - \bar a) b_t^\top + \bar a s^\top$: one row more, and the large common part meets
nothing but $s$. Only the data's side is centred. The mirrored case, constant cotangents with
activations that sum to zero over the tokens, is not repaired: centring both sides costs twice
as much.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from fishjax.capture.factored import Outer

__all__ = ["centred", "is_centred"]


def is_centred(dtype: Any, rows: int) -> bool:
    """Whether the Gram form is centred.

    Half-precision factors are not: their own rounding exceeds what centring repairs, and they
    would have to be widened first.
    """
    return rows > 1 and jnp.finfo(dtype).bits >= 32


def centred(part: Outer) -> tuple[Outer, Outer]:
    """`(rows, mean)`: gradients whose sum is the gradient; `mean` has one row.

    The side that comes from the data is centred, whichever it is.
    """
    left, right = part.left, part.right
    if part.data_on_left:
        first, last = jnp.mean(left, axis=2, keepdims=True), jnp.sum(right, axis=2, keepdims=True)
        left = left - first
    else:
        first, last = jnp.sum(left, axis=2, keepdims=True), jnp.mean(right, axis=2, keepdims=True)
        right = right - last
    rows = dataclasses.replace(part, left=left, right=right)
    return rows, dataclasses.replace(part, left=first, right=last)
