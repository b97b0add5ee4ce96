"""`kill -9` at random moments across all stages; what is left at the end must be the same bytes.

Every stage first runs undisturbed on the bundled model, twice: to compile, and to learn how long it
lives before and after its first write. Then again and again: a stage is started in a new directory,
killed at a random moment, started again, killed again, a random number of times, and at last left
to end. Nine kills of ten fall after the first write; those that come too late are not counted.

After every kill: rows and losses are a part of the undisturbed run's, with at most one torn line at
the end; stored states read back; operators, adapters and models are whole or absent. At the end:
every file equals that of the undisturbed run, stored arrays bit for bit, metrics but for times, and
nothing else is there, hidden files included.

Command: `make soak` (50 kills), or `--kills 3` for a quick look. Expected: no difference and no
problem; results in `experiments/results/soak.json`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import jax
import tokenizers

import fishjax
from experiments.run_contents import differences, file_content
from fishjax import models
from fishjax.io import RowsError
from fishjax.io.checkpoints import load_tree

WORLD = pathlib.Path(fishjax.__file__).parent / "bundled" / "world"
APPENDED = ("rows.jsonl", "losses.jsonl")
POLL = 0.002


class Life(NamedTuple):
    """Seconds of an undisturbed run, before and after its manifest appears."""

    before: float
    after: float


def stages(folder: pathlib.Path) -> dict[str, list[str]]:
    """Name to the command line of a stage, without `--out`; small inputs are written."""
    lines = (WORLD / "conflict_4.jsonl").read_text().splitlines()[:48]
    questions, corpus = folder / "questions.jsonl", folder / "open.jsonl"
    questions.write_text("\n".join(lines) + "\n")
    records = [json.loads(line) for line in lines[:24]]
    corpus.write_text(
        "".join(
            json.dumps({"id": r["id"], "question": r["question"], "answers": r["choices"]}) + "\n"
            for r in records
        )
    )
    text = folder / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(f"{r['question']} {r['choices'][0]}" for r in records))
    model, train = ["--model", str(WORLD)], ["--data", str(text), "--batch", "2", "--length", "16"]
    return {
        "score": ["score", *model, "--task", "multiple_choice", "--data", str(questions),
                  "--batch-tokens", "256"],
        "score text": ["score", *model, "--task", "text", "--data", str(text), "--stride", "8",
                       "--batch-tokens", "48", "--no-plots"],
        "generate": ["generate", *model, "--task", "open_qa", "--data", str(corpus),
                     "--samples", "2", "--max-tokens", "6", "--batch", "2"],
        "score generations": ["score", *model, "--generations", str(folder / "generate"),
                              "--batch-tokens", "64", "--no-plots"],
        "fisher": ["fisher", *model, *train, "--kind", "ekfac", "--checkpoint-every", "1",
                   "--no-plots"],
        "fisher merge": ["fisher", "merge", *(str(folder / f"worker {i}") for i in range(2)),
                         "--no-plots"],
        "finetune": ["finetune", *model, *train, "--steps", "24", "--lora-rank", "2",
                     "--checkpoint-every", "2", "--merge"],
        "finetune all": ["finetune", *model, *train, "--steps", "8", "--full",
                         "--checkpoint-every", "1"],
        "finetune peft": ["finetune", "--model", str(hub_model(folder / "hub", text)), *train,
                          "--steps", "12", "--lora-rank", "2", "--checkpoint-every", "2"],
    }  # fmt: skip


def hub_model(folder: pathlib.Path, text: pathlib.Path) -> pathlib.Path:
    """The bundled model as a Hugging Face directory, so that fine-tuning exports for PEFT.

    Its tokenizer numbers the words of the text: that the model knows other ids changes no write.
    """
    if folder.exists():
        return folder
    model = models.load(WORLD)
    config = model.config
    values = {
        "model_type": "llama", "vocab_size": config.vocab_size, "hidden_size": config.width,
        "intermediate_size": config.hidden_width, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.context_length, "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    models.save_huggingface(folder, dataclasses.replace(model, source=values))
    words = ["<unk>", "<s>", "</s>", *sorted(set(text.read_text().split()))]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def workers(folder: pathlib.Path) -> dict[str, list[str]]:
    """What `fisher merge` joins."""
    command = stages(folder)["fisher"]
    return {f"worker {i}": [*command, "--shard", f"{i}/2"] for i in range(2)}


def start(words: list[str], out: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen[bytes]:
    """A stage in a process of its own; compiled programs are kept, so that its life is its work."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "fishjax", *words, "--out", str(out), "--quiet"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | settings
    )


def finish(words: list[str], out: pathlib.Path, cache: pathlib.Path) -> Life:
    """Lets a stage run to its end."""
    begun, manifest = time.perf_counter(), out / "run.json"
    process = start(words, out, cache)
    while process.poll() is None and not manifest.exists():
        time.sleep(POLL)
    written = time.perf_counter()
    _, message = process.communicate()
    if process.returncode:
        sys.exit(f"error: {words[0]} ended with {process.returncode}: {message.decode()[-500:]}")
    return Life(written - begun, time.perf_counter() - written)


def killed(
    words: list[str], out: pathlib.Path, cache: pathlib.Path, life: Life, rng: random.Random
) -> float | None:
    """Seconds after which the stage was killed, None where it had ended before."""
    early = rng.random() < 0.1
    moment = rng.uniform(0, life.before) if early else life.before + rng.uniform(0, life.after)
    begun = time.perf_counter()
    process = start(words, out, cache)
    while process.poll() is None and time.perf_counter() - begun < moment:
        time.sleep(POLL)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return time.perf_counter() - begun if alive and process.returncode == -9 else None


def problems(out: pathlib.Path, expected: pathlib.Path) -> list[str]:
    """What a kill left that a later command would take for whole and is not."""
    found = []
    for path in out.iterdir() if out.is_dir() else ():
        if path.name.startswith("."):
            continue
        whole = expected / path.name
        if path.name in APPENDED:
            lines = path.read_bytes().split(b"\n")[:-1]
            extra = set(lines) - set(whole.read_bytes().split(b"\n"))
            found += [f"{path.name} has other lines"] if extra else []
        elif path.name == "states":
            found += _damaged_states(path)
        elif path.name == "plots":
            found += [f"{p.name} differs" for p in path.glob("[a-z]*") if _differs(p, whole)]
        elif path.is_dir():
            found += [f"{path.name}: {name}" for name in differences(path, whole)]
        elif not whole.exists() or file_content(path) != file_content(whole):
            found.append(f"{path.name} differs")
    return found


def _damaged_states(states: pathlib.Path) -> list[str]:
    """Of the newest: a kill while older ones are removed may leave parts of those."""
    newest = sorted(states.glob("[0-9]*"))[-1:]
    try:
        for state in newest:
            load_tree(state)
    except RowsError as error:
        return [str(error)]
    return []


def _differs(picture: pathlib.Path, folder: pathlib.Path) -> bool:
    return picture.read_bytes() != (folder / picture.name).read_bytes()


def progress(out: pathlib.Path) -> str:
    """What there was when the kill came."""
    if not (out / "run.json").exists():
        return "nothing"
    names = {path.name for path in out.iterdir()}
    if names & {"metrics.json", "operator", "adapters", "model", "peft"}:
        return "outputs"
    states = list((out / "states").glob("[0-9]*")) if "states" in names else []
    return "rows or states" if states or "rows.jsonl" in names else "manifest"


def soak(
    folder: pathlib.Path, num_kills: int, rng: random.Random
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Kills stages at random until there were enough kills; counts of stages, and every kill."""
    cache, commands = folder / "compiled", stages(folder)
    for name, words in workers(folder).items():
        finish(words, folder / name, cache)
    lives = {}
    for name, words in commands.items():
        finish(words, folder / name, cache)
        lives[name] = finish(words, folder / "again", cache)
        found = differences(folder / "again", folder / name)
        if found:
            sys.exit(f"error: two undisturbed runs of {name} differ: {', '.join(found)}")
        shutil.rmtree(folder / "again")
        print(f"{name}: {lives[name].before:.1f} s and {lives[name].after:.1f} s", flush=True)
    counts = {n: {"runs": 0, "kills": 0, "problems": [], "different": []} for n in commands}
    kills: list[dict[str, Any]] = []
    while len(kills) < num_kills:
        name = list(commands)[sum(c["runs"] for c in counts.values()) % len(commands)]
        out, words, count = folder / "out", commands[name], counts[name]
        for _ in range(rng.randint(1, 3)):
            moment = killed(words, out, cache, lives[name], rng)
            if moment is not None:
                count["kills"] += 1
                there = progress(out)
                kills.append({"stage": name, "seconds": round(moment, 2), "there": there})
            count["problems"] += problems(out, folder / name)
        finish(words, out, cache)
        count["runs"] += 1
        count["different"] += differences(out, folder / name)
        shutil.rmtree(out)
        print(f"{len(kills)} kills; {name}: {count}", flush=True)
    return counts, kills


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills stages at random moments.")
    parser.add_argument("--kills", type=int, default=50, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="folder for soak.json")
    args = parser.parse_args()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        counts, kills = soak(pathlib.Path(name), args.kills, random.Random(args.seed))
    result = {
        "kills": len(kills),
        "seed": args.seed,
        "minutes": round((time.perf_counter() - begun) / 60, 1),
        "fishjax": fishjax.__version__,
        "jax": jax.__version__,
        "stages": counts,
        "moments": kills,
    }
    if args.out:
        (args.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    if any(count["different"] or count["problems"] for count in counts.values()):
        sys.exit("error: a killed run left something else than an undisturbed one")
    print(f"{len(kills)} kills, nothing lost, the same bytes")


if __name__ == "__main__":
    main()
