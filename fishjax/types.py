"""Array aliases and the two function types every user brings."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

__all__ = ["ApplyFn", "Batch", "Inputs", "LogProbFn", "Params", "WithAux"]


Params = Any
Batch = Any
Inputs = Any

LogProbFn = Callable[[Params, Batch], Float[Array, " N"]]
"""One number per example. Every batch leaf has the example axis first; the meaning of
`fn(params, batch)[n]` is `fn(params, batch[n:n+1])[0]`: examples never mix."""

ApplyFn = Callable[[Params, Inputs], Float[Array, "N K"]]
"""A model: K outputs for each of N examples, under the same law."""

WithAux = Callable[[Params, Batch], tuple[Array, Any]]
"""Either of the above with auxiliary outputs, whose leaves have the example axis first."""
