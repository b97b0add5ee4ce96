"""Questions per second of `fishjax score`, and what a user of PyTorch has instead.

Programs, each in a process of its own, taking turns (`turns`), on the same weights and questions:

- ours: batches as `fishjax score` plans them, answers sharing their prompt where that is faster;
- ours, prompts apart: the same without sharing;
- backward only: shared prompts, gradients of the norms' scales alone: a backward pass through
  every layer for every answer and next to nothing else, which no engine can do without;
- likelihoods only: our forward pass over the un-shared prompts, no gradient, no score;
- PyTorch loop: one backward pass an answer (`torch_llama`), the Gram of a question's gradients;
- transformers loop: the same with that library's Llama (`transformers_llama`).

The first two and the loops return log ||grad p_k||^2 of every answer, which must agree with the
PyTorch loop in float64 (not timed), ours to 0.001, the loops to 0.05: their Grams are sums of three
million products in float32. Targets:
ours at least 5 times the questions per second of the loop, and at most 3.5 times the likelihoods'
time.

Command: `make bench-peers`, or `python -m experiments.bench.throughput --out
experiments/bench/results` (`--model`, `--task`, `--data`: stories3M_q80 and TruthfulQA in
`../shared/data` unless told). Some 3 minutes on 2 quiet cores.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

from experiments.bench import turns
from fishjax.cli.programs import Programs
from fishjax.cli.step import build_step
from fishjax.compilation import compiler_options
from fishjax.models import LanguageModel, load
from fishjax.tasks import (
    EncodedQuestion,
    answer_log_likelihoods,
    encode_questions,
    load_task,
    plan_batches,
)
from fishjax.trees import flatten_with_paths

SHARED = pathlib.Path(os.environ.get("FISHJAX_SHARED", "../shared")) / "data"
QUESTIONS, BATCH_TOKENS, ROUNDS = 12, 8192, 3
SCALES = "layers/attention_norm"
LOOPS = {
    "PyTorch loop": ("torch", "experiments.bench.torch_llama:program"),
    "transformers loop": ("transformers", "experiments.bench.transformers_llama:program"),
}
NO_SCORES = ("backward only", "likelihoods only")
TOLERANCE, TOLERANCE_OF_LOOPS = 0.001, 0.05  # of a logarithm


def prepared(
    model: str, task: str, data: str, count: int
) -> tuple[LanguageModel, list[EncodedQuestion]]:
    """The model, and questions spread evenly over the file."""
    found = load(pathlib.Path(model), remat=True)
    questions = load_task(task, pathlib.Path(data)).questions
    questions = questions[:: max(1, len(questions) // count)][:count]
    context = found.config.context_length
    return found, encode_questions(questions, found.tokenizer, context, found.adds_bos)


def ours(share: bool, parameters: str | None = None, **source: Any) -> tuple[Any, dict[str, Any]]:
    """The scoring program, for `turns.Worker`."""
    found, encoded = prepared(**source)
    batches = plan_batches(encoded, batch_tokens=BATCH_TOKENS, share_prompts=share)
    programs = Programs(build_step(found.apply_fn, parameters=parameters), found.params)

    def run() -> list[float]:
        rows: dict[int, np.ndarray] = {}
        for batch in batches:
            scores = programs(batch).scores["epistemic"]
            rows |= {int(i): scores[row] for row, i in enumerate(batch.indices) if i >= 0}
        return [float(x) for i, q in enumerate(encoded) for x in rows[i][: len(q.answers)]]

    run()
    costs = [programs.costs(batch) for batch in batches]
    return run, {
        "questions": len(encoded),
        "answers": sum(len(q.answers) for q in encoded),
        "tokens": sum(len(a.token_ids) - 1 for q in encoded for a in q.answers),
        "compile_s": programs.compile_seconds,
        "flops": sum(flops for flops, _ in costs),
        "largest_temporaries": max(size for _, size in costs),
    }


def likelihoods(**source: Any) -> tuple[Any, dict[str, Any]]:
    """The forward pass alone, over un-shared prompts."""
    found, encoded = prepared(**source)
    batches = plan_batches(encoded, batch_tokens=BATCH_TOKENS)
    values = jax.jit(answer_log_likelihoods(found.apply_fn), compiler_options=compiler_options())

    def run() -> list[float]:
        numbers = []
        for batch in batches:
            rows = {n: x.reshape(-1, *x.shape[2:]) for n, x in batch.groups.items()}
            numbers += np.asarray(values(found.params, rows))[batch.mask.reshape(-1)].tolist()
        return numbers

    return run, {}


def export(folder: pathlib.Path, **source: Any) -> None:
    """Weights and questions for `torch_llama.program`."""
    found, encoded = prepared(**source)
    paths, leaves, _ = flatten_with_paths(found.params)
    config = found.config
    cos, sin = config.rotary_of(local=False).tables(config.head_width, config.context_length)
    tables = {"cos": np.asarray(cos, np.float32), "sin": np.asarray(sin, np.float32)}
    weights = {path: np.asarray(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    np.savez(folder / "weights.npz", **weights, **tables)
    names = ("num_layers", "num_heads", "num_kv_heads", "head_width", "norm_epsilon")
    shape: dict[str, Any] = {name: getattr(config, name) for name in names}
    shape["layer_weights"] = [p.removeprefix("layers/") for p in paths if p.startswith("layers/")]
    questions = [
        [
            {"read": a.token_ids[:-1], "targets": a.token_ids[-a.num_targets :]}
            for a in question.answers
        ]
        for question in encoded
    ]
    (folder / "questions.json").write_text(json.dumps({"shape": shape, "questions": questions}))


def measure(source: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Sets all programs up one after another, then gives each `rounds` turns."""
    here = "experiments.bench.throughput"
    with tempfile.TemporaryDirectory() as folder:
        export(pathlib.Path(folder), **source)
        workers = {
            "ours": turns.Worker(f"{here}:ours", source | {"share": True}),
            "ours, prompts apart": turns.Worker(f"{here}:ours", source | {"share": False}),
            "backward only": turns.Worker(
                f"{here}:ours", source | {"share": True, "parameters": SCALES}
            ),
            "likelihoods only": turns.Worker(f"{here}:likelihoods", source),
        }
        for loop, (package, target) in LOOPS.items():
            if importlib.util.find_spec(package) is not None:
                workers[loop] = turns.Worker(target, {"folder": folder})
        load_average, times = os.getloadavg()[0], {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name].append(worker.turn())
        for worker in workers.values():
            worker.close()
    rows = {name: dict(worker.first) for name, worker in workers.items()}
    reference = rows.get("PyTorch loop", {}).pop("reference", rows["ours"]["numbers"])
    count = rows["ours"]["questions"]
    for name, row in rows.items():
        numbers = np.array(row.pop("numbers"))
        row["median_s"], row["min_s"] = statistics.median(times[name]), min(times[name])
        row["questions_per_second"] = count / row["median_s"]
        if name not in NO_SCORES:
            row["max_difference"] = float(np.max(np.abs(numbers - np.array(reference))))
    seconds = {name: row["median_s"] for name, row in rows.items()}
    ratios = {f"{n} / likelihoods": s / seconds["likelihoods only"] for n, s in seconds.items()}
    for loop in [name for name in LOOPS if name in seconds]:
        ratios |= {f"{loop} / {n}": seconds[loop] / s for n, s in seconds.items()}
    return {"programs": rows, "ratios": ratios, "load_average": load_average}


def main() -> None:
    """Measures and writes `throughput_<task>.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(SHARED / "models" / "stories3M_q80"))
    parser.add_argument("--task", default="truthfulqa_mc1", help="(%(default)s)")
    parser.add_argument("--data", default=str(SHARED / "truthfulqa" / "mc_task.json"))
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="folder for throughput_<task>.json")
    args = parser.parse_args()
    begun = time.perf_counter()
    source = {"model": args.model, "task": args.task, "data": args.data, "count": args.questions}
    for path in (args.model, args.data):
        if not pathlib.Path(path).exists():
            sys.exit(f"error: no {path}: give --model, --task and --data, or set FISHJAX_SHARED")
    result = measure(source, args.rounds)
    for name, row in result["programs"].items():
        print(
            f"{name:22s}{row['median_s']:8.2f} s{row['questions_per_second']:8.2f} questions/s"
            f"  peak {row['peak_bytes'] / 2**20:.0f} MiB  difference "
            f"{row.get('max_difference', float('nan')):.1e}"
        )
    print("  ".join(f"{name} {ratio:.2f}" for name, ratio in result["ratios"].items()))
    result |= {"task": args.task, "model": pathlib.Path(args.model).name, "jax": jax.__version__}
    result["wall_s"] = round(time.perf_counter() - begun, 1)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.out / f"throughput_{args.task}.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
    wrong = []
    for name, row in result["programs"].items():
        allowed = TOLERANCE_OF_LOOPS if name in LOOPS else TOLERANCE
        if not row.get("max_difference", 0.0) <= allowed:
            wrong.append(name)
    if wrong:
        sys.exit(f"error: scores differ by more than they may: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
