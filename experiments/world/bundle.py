"""Makes everything under `fishjax/bundled/world`: questions, five trained decoders, scores.

Purpose: the data of `fishjax demo`. One training seed's weights ship; of the others only
the scores of the questions, which come from `fishjax score` itself. Steps: write the question
sets, train every seed (`experiments/world/train.py`), score every set with every seed, pack.
Finished trainings and runs under --work are reused.

Command:   python -m experiments.world.bundle
Smoke:     python -m experiments.world.bundle --smoke --work runs/smoke --out runs/smoke/world
Duration:  see experiments/README.md.
"""

import argparse
import dataclasses
import gzip
import hashlib
import json
import pathlib
import shutil

from experiments.world.train import SMOKE, TrainConfig, train
from fishjax import cli, io
from fishjax.cli.demo_columns import chosen_columns, rounded_columns
from fishjax.tasks.world import make_world
from fishjax.tasks.world_questions import QUESTION_SETS, question_sets, write_questions

SEEDS = (0, 1, 2, 3, 4)
SHIPPED_SEED = 0


def ensure_trained(config: TrainConfig, out: pathlib.Path) -> dict:
    """Trains unless `out` holds a training of the same configuration."""
    record = out / "training.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    if record.exists() and json.loads(record.read_text())["config"] == wanted:
        return json.loads(record.read_text())
    return train(config, out)


def score(model: pathlib.Path, questions: pathlib.Path, out: pathlib.Path) -> None:
    """Runs the product's own command; a finished run is left as it is."""
    paths = ["--model", str(model), "--data", str(questions), "--out", str(out)]
    status = cli.main(["score", "--task", "multiple_choice", "--quiet", *paths])
    if status:
        raise SystemExit(f"fishjax score failed on {questions} with {model}")


def stored_scores(work: pathlib.Path) -> dict:
    """Seed, question set and column to values, of the seeds that do not ship."""
    return {
        str(seed): {
            name: rounded_columns(chosen_columns(_rows(work, seed, name))) for name in QUESTION_SETS
        }
        for seed in SEEDS
        if seed != SHIPPED_SEED
    }


def _rows(work: pathlib.Path, seed: int, name: str) -> list[dict]:
    num_questions = len((work / f"{name}.jsonl").read_text().splitlines())
    return io.read_rows(work / f"seed{seed}" / name / io.ROWS_NAME, num_questions)


def pack(work: pathlib.Path, out: pathlib.Path, trainings: dict[int, dict]) -> None:
    """Writes the bundle and its manifest."""
    out.mkdir(parents=True, exist_ok=True)
    shipped = work / f"seed{SHIPPED_SEED}" / "model"
    for file in ("world.bin", "tokenizer.bin"):
        shutil.copyfile(shipped / file, out / file)
    for name in QUESTION_SETS:
        shutil.copyfile(work / f"{name}.jsonl", out / f"{name}.jsonl")
    text = json.dumps(stored_scores(work), separators=(",", ":"))
    # No time stamp, so that equal scores give equal bytes.
    (out / "stored_scores.json.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    manifest = {
        "made_by": "python -m experiments.world.bundle",
        "question_sets": list(QUESTION_SETS),
        "shipped_seed": SHIPPED_SEED,
        "stored_seeds": [seed for seed in SEEDS if seed != SHIPPED_SEED],
        "trainings": trainings,
        "files": {
            file.name: {
                "bytes": file.stat().st_size,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            }
            for file in sorted(out.iterdir())
            if file.name != "manifest.json"
        },
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def bundle(base: TrainConfig, work: pathlib.Path, out: pathlib.Path) -> None:
    """All steps, in order."""
    work.mkdir(parents=True, exist_ok=True)
    for name, questions in question_sets(make_world(base.world)).items():
        write_questions(work / f"{name}.jsonl", questions)
    trainings = {}
    for seed in SEEDS:
        model = work / f"seed{seed}" / "model"
        trainings[seed] = ensure_trained(dataclasses.replace(base, seed=seed), model)
        for name in QUESTION_SETS:
            score(model, work / f"{name}.jsonl", work / f"seed{seed}" / name)
    pack(work, out, trainings)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("runs/world"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("fishjax/bundled/world"))
    parser.add_argument("--smoke", action="store_true", help="a tiny world and models")
    arguments = parser.parse_args()
    bundle(SMOKE if arguments.smoke else TrainConfig(), arguments.work, arguments.out)


if __name__ == "__main__":
    main()
