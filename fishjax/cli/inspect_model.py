"""`fishjax inspect MODEL`: architecture, parameters, coverage, memory and time of a checkpoint."""

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from fishjax import capture, gradients
from fishjax.cli.environment import available_bytes, format_bytes
from fishjax.cli.errors import InputError
from fishjax.compilation import compiler_options
from fishjax.models import CheckpointError, Described, decoder_apply_fn, describe
from fishjax.models.hub import is_hub_id
from fishjax.trees import flatten_with_paths

__all__ = ["inspect_model", "is_model"]

_SIDE = 1024  # of the matrices whose product measures the device


def is_model(path: pathlib.Path) -> bool:
    """Whether a path looks like a checkpoint rather than a run's directory."""
    return path.suffix == ".bin" or path.name == "config.json" or is_hub_id(path) or (
        path.is_dir() and ((path / "config.json").exists() or any(path.glob("*.bin")))
    )  # fmt: skip


def inspect_model(path: pathlib.Path, *, batch: int, length: int | None, quiet: bool) -> None:
    """Prints what a checkpoint is and what gradient norms of it cost; no weights are read.

    Raises:
      InputError: it cannot be used.
    """
    try:
        found = describe(path)
    except CheckpointError as error:
        raise InputError(str(error)) from None
    length = min(length or found.config.context_length, found.config.context_length, 4096)
    console = Console(quiet=quiet)
    _print_architecture(found, console)
    shapes = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    report = capture.uses(_log_likelihood(found), found.shapes, shapes)
    console.print(str(report), highlight=False, soft_wrap=True)
    _print_cost(found, shapes, console)


def _log_likelihood(found: Described) -> Any:
    apply_fn = decoder_apply_fn(found.config)

    def log_prob(params: Any, ids: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(apply_fn(params, ids)[:, :-1])
        return jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0].sum(axis=-1)

    return log_prob


def _print_architecture(found: Described, console: Console) -> None:
    config = found.config
    total = sum(leaf.size for leaf in jax.tree.leaves(found.shapes))
    table = Table(title=f"{found.family}, {total:,} parameters", show_header=False)
    facts: dict[str, Any] = {
        "layers, width, hidden": f"{config.num_layers}, {config.width}, {config.hidden_width}",
        "heads (queries, keys), size": (
            f"{config.num_heads}, {config.num_kv_heads}, {config.head_width}"
        ),
        "vocabulary, context": f"{config.vocab_size:,}, {config.context_length:,}",
        "head": "tied to the embedding" if config.tied else "its own",
        "positions": config.positions,
        "norm, MLP": f"{config.norm}, {config.mlp} {config.activation}",
    }
    if config.window:
        windowed = sum(window is not None for window in config.windows)
        facts["window"] = f"{config.window} in {windowed} of {config.num_layers} layers"
    for size in (4, 2):
        facts[f"weights in {'float32' if size == 4 else 'bfloat16'}"] = format_bytes(size * total)
    for name, value in facts.items():
        table.add_row(name, str(value))
    console.print(table)


def _print_cost(found: Described, ids: jax.ShapeDtypeStruct, console: Console) -> None:
    """Memory from the compiled program, time from its FLOPs and the device's measured rate."""
    norms = gradients.squared_norms(_log_likelihood(found))
    compiled = (
        jax.jit(norms, compiler_options=compiler_options()).lower(found.shapes, ids).compile()
    )
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    weights = sum(leaf.size * 4 for leaf in jax.tree.leaves(found.shapes))
    if memory is not None:
        needed = weights + memory.temp_size_in_bytes + memory.output_size_in_bytes
        room = available_bytes()
        told = "unknown" if room is None else format_bytes(room)
        console.print(
            f"memory of norms of {ids.shape[0]} x {ids.shape[1]} tokens in float32: "
            f"{format_bytes(needed)}, weights included; available {told}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    flops = max(_flops(found, ids), cost.get("flops", 0.0))
    rate = _measured_rate()
    console.print(
        f"time: about {flops / rate:.2g} s a batch ({flops:.2g} FLOPs at this device's measured "
        f"{rate / 1e9:.0f} GFLOP/s of matrix products)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _flops(found: Described, ids: jax.ShapeDtypeStruct) -> float:
    """Forward and activations-only backward, 4 FLOPs a parameter and token.

    XLA counts the body of a scan once, so its own number is too low.
    """
    skipped = ("positions",) if found.config.tied else ("positions", "embedding")
    paths, leaves, _ = flatten_with_paths(found.shapes)
    size = sum(leaf.size for path, leaf in zip(paths, leaves, strict=True) if path not in skipped)
    return 4.0 * size * ids.shape[0] * ids.shape[1]


def _measured_rate() -> float:
    """FLOP/s of a float32 matrix product on the default device."""
    side = jnp.ones((_SIDE, _SIDE))
    product = jax.jit(jnp.matmul)
    product(side, side).block_until_ready()
    start = time.perf_counter()
    for _ in range(3):
        product(side, side).block_until_ready()
    return 3 * 2 * _SIDE**3 / (time.perf_counter() - start)
