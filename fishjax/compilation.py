"""How programs are compiled where XLA's defaults cannot be trusted."""

import functools

import jax

__all__ = ["compiler_options"]

# Which fusions of XLA's CPU backend go to YNNPACK, whose results can be wrong: none.
_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit(fn, compiler_options=...)`; empty except on the CPU.

    In jaxlib 0.10 to 0.12, XLA's CPU backend hands chains of products and reductions to YNNPACK,
    and for some shapes the result is wrong by any amount: seen in the backward passes of decoders
    under `vmap` over several outputs (`jax.jacrev`, `fishjax.gradients.jacobian_gram`), where a
    value without the new axis is broadcast along it. With these options YNNPACK gets nothing.
    `docs/engine.md` has an example of a few lines.

    Every program that fishjax compiles itself uses them. For your own `jax.jit` pass them, or set
    `XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=` before JAX starts; fishjax does not.

    Example:
      >>> fn = jax.jit(jax.numpy.sum, compiler_options=compiler_options())
      >>> float(fn(jax.numpy.ones(3)))
      3.0
    """
    return dict(_known(jax.default_backend()))


@functools.cache
def _known(platform: str) -> dict[str, str]:
    """Those of the platform that this version of XLA knows."""
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=_CPU).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # a version without YNNPACK
        return {}
    return _CPU
