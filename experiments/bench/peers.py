"""What exact per-example gradient norms cost here and in PyTorch, side by side.

The same GPT decoder, the same float32 weights, the same token ids; squared gradient norms of every
parameter, one number an example, by

- ours: `gradients.squared_norms`, compiled once; also of the scanned and rematerialised model
  where the table of `experiments.bench.norms` has it (PyTorch has no scan: it runs unrolled);
- loop: PyTorch, one example's backward pass after another;
- vmap(grad): `torch.func`, per-example gradients at once or a few at a time;
- Opacus: ghost norms.

`experiments.bench.torch_decoder` says how each is set up. Compiled variants (`torch.compile`, needs
a C++ compiler) are rows of their own; a peer's summary is its fastest row. The model has no tied
weights, so every method is exact; the largest relative difference from ours is a column, and
more than 1e-3 fails the run (PyTorch's float32 vector norms of millions of entries lose 1e-4).
Each program has a process of its own and they take turns (`experiments.bench.turns`): JAX and
PyTorch never share one.

Needs a quiet machine: PyTorch's threads wait for each other at every operation, so another busy
process slows PyTorch several times more than JAX. The load average is in the results; the
set-up just before accounts for about 1 of it.

Command: `make bench-peers` (about 20 minutes on 2 cores), or `--smoke` in one to three minutes.
Expected: ours is the fastest at every size.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from experiments.bench import decoder, norms, turns
from experiments.bench.decoder import Size
from fishjax import gradients

NAMES = (
    "loop", "loop, compiled",
    "vmap(grad)", "vmap(grad), chunks", "vmap(grad), compiled", "vmap(grad), compiled, chunks",
    "Opacus", "Opacus, lean backward",
)  # fmt: skip
PEERS = ("loop", "vmap(grad)", "Opacus")
TOLERANCE = 1e-3
ROUNDS = 5
MISSING = "error: this benchmark needs the extra bench-peers: pip install '.[bench-peers]'"


def ours(size: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Our program of one size, for `turns.Worker`."""
    model = Size(**size)
    params, ids = _inputs(model)
    fn = gradients.squared_norms(decoder.log_likelihood(model))
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(params, ids).compile()
    about = {"compile_s": time.perf_counter() - start, "threads": turns.cores()}
    return lambda: jax.block_until_ready(compiled(params, ids))[1].total, about


def _inputs(size: Size) -> tuple[Any, jax.Array]:
    ids = jax.random.randint(jax.random.key(1), (size.batch, size.length), 0, size.vocabulary)
    return decoder.init(size, jax.random.key(0)), ids


def export(size: Size, path: pathlib.Path) -> None:
    """Every parameter of the unrolled model by its path, and the token ids, as npz."""
    params, ids = _inputs(size)
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    name = lambda keys: jax.tree_util.keystr(keys, simple=True, separator=".")  # noqa: E731
    np.savez(path, ids=np.asarray(ids), **{name(keys): np.asarray(a) for keys, a in leaves})


def start(size: Size, controls: list[str], weights: pathlib.Path) -> dict[str, turns.Worker]:
    """A worker for each program, set up one after another; programs that cannot run are left out.

    Raises:
      RuntimeError: a worker ended.
    """
    workers = {}
    for control in controls:
        arguments = {"size": dataclasses.asdict(dataclasses.replace(size, control=control))}
        name = "ours" if control == "unrolled" else f"ours, {control}"
        workers[name] = turns.Worker("experiments.bench.peers:ours", arguments)
    for name in NAMES:
        if reason := _obstacle(name, size, weights):
            print(f"  {name}: left out, {reason}")
            continue
        arguments = {"name": name, "weights": str(weights)}
        workers[name] = turns.Worker("experiments.bench.torch_decoder:program", arguments)
    return workers


def _obstacle(name: str, size: Size, weights: pathlib.Path) -> str | None:
    if "compiled" in name and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "no C++ compiler"
    if name.startswith("vmap(grad)") and "chunks" not in name:
        need = 1.5 * size.batch * weights.stat().st_size
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        if need > free:
            return f"needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
    return None


def measure(size: Size, controls: list[str], seconds: float) -> dict[str, Any]:
    """Sets up all programs of one size, then gives them turns for about `seconds`.

    Args:
      size: the unrolled model and batch.
      controls: control flows of ours; "unrolled" first.
      seconds: timing budget; every program has at least `ROUNDS` turns.

    Returns:
      Rows by program, and how many times ours each peer's fastest row takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / "weights.npz"
        export(size, weights)
        workers = start(size, controls, weights)
    times: dict[str, list[float]] = {name: [] for name in workers}
    load = os.getloadavg()[0]
    begin = time.perf_counter()
    while len(times["ours"]) < ROUNDS or time.perf_counter() - begin < seconds:
        for name, worker in workers.items():
            times[name].append(worker.turn())
    for worker in workers.values():
        worker.close()
    reference = np.array(workers["ours"].first["numbers"])
    rows = {}
    for name, worker in workers.items():
        row = dict(worker.first)
        row["max_relative_difference"] = np.max(np.abs(row.pop("numbers") / reference - 1))
        row["median_s"], row["min_s"] = statistics.median(times[name]), min(times[name])
        rows[name] = {**row, "runs": len(times[name])}
    best = {peer: _fastest(rows, peer) for peer in PEERS}
    return {
        "size": size.name.removesuffix(" unrolled"),
        "load_average": load,
        "programs": rows,
        "fastest": best,
        "ratios": {
            f"{name} / {peer}": rows[name]["median_s"] / rows[best[peer]]["median_s"]
            for name in rows
            if name.startswith("ours")
            for peer in PEERS
        },
    }


def _fastest(rows: dict[str, Any], peer: str) -> str:
    return min((n for n in rows if n.startswith(peer)), key=lambda n: rows[n]["median_s"])


HEAD = (
    f"{'program':30s}{'median ms':>10s}{'min ms':>10s}{'/ ours':>8s}"
    f"{'peak MiB':>10s}{'above rest':>12s}{'set-up s':>10s}  difference"
)


def table(result: dict[str, Any]) -> str:
    """The printed rows of one size."""
    rows = result["programs"]
    lines = [f"{result['size']}, load average before the turns {result['load_average']:.1f}", HEAD]
    for name, row in rows.items():
        above = row["peak_above_rest_bytes"]
        lines.append(
            f"{name:30s}{row['median_s'] * 1e3:10.1f}{row['min_s'] * 1e3:10.1f}"
            f"{row['median_s'] / rows['ours']['median_s']:8.2f}{row['peak_bytes'] / 2**20:10.0f}"
            f"{'–' if above is None else f'{above / 2**20:.0f}':>12s}{row['setup_s']:10.1f}"
            f"  {row['max_relative_difference']:.1e}"
        )
    return "\n".join([*lines, "  ".join(f"{k} {v:.2f}" for k, v in result["ratios"].items()), ""])


def shapes(sizes: tuple[Size, ...]) -> dict[Size, list[str]]:
    """The GPT shapes of a table, each with its control flows."""
    groups: dict[Size, list[str]] = {}
    for size in sizes:
        if size.architecture == "gpt":
            shape = dataclasses.replace(size, control="unrolled")
            groups.setdefault(shape, ["unrolled"])
            if size.control != "unrolled":
                groups[shape].append(size.control)
    return groups


def main() -> None:
    """Measures every shape and writes `peers.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="folder for peers.json")
    parser.add_argument("--seconds", type=float, default=60.0, help="timing budget of a shape")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, in a few minutes")
    args = parser.parse_args()
    if any(importlib.util.find_spec(package) is None for package in ("torch", "opacus")):
        sys.exit(MISSING)
    results = []
    for size, controls in shapes(norms.SMOKE if args.smoke else norms.SIZES).items():
        results.append(measure(size, controls, 0.1 if args.smoke else args.seconds))
        print(table(results[-1]), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"about": _about(), "results": results}, indent=1)
        (args.out / "peers.json").write_text(text + "\n")
    wrong = [
        f"{result['size']}, {name}: {row['max_relative_difference']:.1e}"
        for result in results
        for name, row in result["programs"].items()
        if not row["max_relative_difference"] <= TOLERANCE
    ]
    if wrong:
        sys.exit(f"error: norms differ from ours by more than {TOLERANCE}: {'; '.join(wrong)}")


def _about() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch", "opacus")}
    return {
        **versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": turns.cores(),
        "allocator": turns.HEAP,
    }


if __name__ == "__main__":
    main()
