"""Exact norms of every parameter of a Llama-3-8B-shaped model on one 80 GB device.

Random bfloat16 weights: what is measured is the engine, not a model. Reports tokens per second,
model-FLOPs utilisation against the device's own measured matrix-product rate, peak memory, and
what `value_and_grad` of the same batch does there (it may not fit).

Command: `python -m experiments.bench.llama8b --out experiments/bench/results` on the device, or
`--smoke`, a tiny model on whatever there is.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fishjax import gradients
from fishjax.models import DecoderConfig, decoder_apply_fn, init_params

LLAMA_3_8B = DecoderConfig(
    vocab_size=128256,
    width=4096,
    hidden_width=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    context_length=8192,
    rope_theta=500000.0,
    tied=False,
    remat=True,
    dtype="bfloat16",
)
SHAPES = ((1, 256), (4, 256), (1, 1024), (8, 128))
SMOKE = dataclasses.replace(
    LLAMA_3_8B, vocab_size=256, width=64, hidden_width=96, num_layers=2, num_heads=4, num_kv_heads=2
)
SMOKE_SHAPES = ((2, 16),)


def random_params(config: DecoderConfig) -> Any:
    """bfloat16 weights, drawn leaf by leaf so that no float32 copy of the model exists."""
    shapes = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    leaves, treedef = jax.tree.flatten(shapes)

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        if len(shape) < 3 and shape[-1] == config.width and shape[0] != config.vocab_size:
            return jnp.ones(shape, jnp.bfloat16)  # norm scales
        return jax.random.normal(key, shape, jnp.bfloat16) / jnp.bfloat16(config.width**0.5)

    compiled = jax.jit(draw, static_argnums=1)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(
        treedef, [compiled(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


def timed(run: Callable[[], Any], rounds: int = 5) -> float:
    """Median seconds of a call, after one to warm up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(size: int) -> float:
    """Measured FLOP/s of one bfloat16 product `[size, size]`."""
    x = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / timed(lambda: product(x))


def measure(fn: Callable[..., Any], params: Any, ids: jax.Array) -> dict[str, Any]:
    """Time, compiled cost and memory of one program; the error's first line if it cannot run."""
    try:
        compiled = jax.jit(fn).lower(params, ids).compile()
        seconds = timed(lambda: compiled(params, ids))
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).splitlines()[0]}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "seconds": seconds,
        "tokens_per_second": ids.size / seconds,
        "xla_flops": cost.get("flops") if cost else None,
        "temp_and_output_bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes,
        "device_peak_bytes": stats.get("peak_bytes_in_use"),
    }


def main() -> None:
    """Measures every batch shape and writes `llama8b.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="folder for llama8b.json")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, in seconds")
    args = parser.parse_args()
    config, shapes = (SMOKE, SMOKE_SHAPES) if args.smoke else (LLAMA_3_8B, SHAPES)
    apply_fn = decoder_apply_fn(config)

    def fn(params: Any, ids: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(apply_fn(params, ids)[:, :-1])
        return jnp.take_along_axis(log_probs, ids[:, 1:, None], -1)[..., 0].sum(-1)

    params = random_params(config)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    rate = matmul_rate(256 if args.smoke else 8192)
    device = jax.devices()[0].device_kind
    print(f"{device}: {count / 1e9:.2f} G parameters, measured {rate / 1e12:.1f} TFLOP/s")
    results = []
    programs = {
        "norms": lambda p, ids: gradients.squared_norms(fn)(p, ids)[1].total,
        "value_and_grad": jax.value_and_grad(lambda p, ids: fn(p, ids).sum()),
    }
    # products of the model alone: forward, again in remat, and the activations' cotangents
    passes = {"norms": 6, "value_and_grad": 8}
    matrices = count - config.vocab_size * config.width  # the embedding is a gather
    for n, t in shapes:
        ids = jax.random.randint(jax.random.key(1), (n, t), 0, config.vocab_size)
        for name, program in programs.items():
            found = measure(program, params, ids)
            if "seconds" in found:
                flops = passes[name] * matrices * ids.size
                found["model_flops_utilisation"] = flops / found["seconds"] / rate
            results.append({"program": name, "batch": n, "length": t, **found})
            print(json.dumps(results[-1]), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        about = {"jax": jax.__version__, "device": device, "parameters": count, "flops_rate": rate}
        text = json.dumps({"about": about, "results": results}, indent=1)
        (args.out / "llama8b.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
