"""Every command of fishjax on real checkpoints and real data, and the table of what came out.

Two language models of children's stories (260 thousand and 3 million parameters) answer published
question files, questions made of held-out stories (`experiments/story_questions.py`), and read
text. On the published files they are near chance: those numbers check the pipeline only.

Command: `python -m experiments.real_data --data ../shared/data --out experiments/results`
(an hour on 2 quiet cores), with `--only NAME ...` for some runs, `--list` to print their commands,
`--smoke` for four questions of each (minutes; writes no results). Runs stay in `--runs`; of each,
`metrics.json` and what was printed are kept, and the tables of `experiments/README.md` are written
anew from all that is kept. A run starts afresh: what an earlier one left in its directory goes.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any

from experiments import real_data_tables
from experiments.story_questions import LAST_WORD, NEXT_SENTENCE, write_questions

SMALL, LARGE = "stories260K", "stories3M_q80"
README = pathlib.Path(__file__).with_name("README.md")


@dataclasses.dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
      name: of its directory; `{model}_{task}`.
      command: without `--out` and `--limit`; `{data}` and `{runs}` are folders.
      limit: most questions or documents.
      has_out: whether the command writes a directory.
      evaluates: the run whose metrics the command writes anew, and which are kept.
    """

    name: str
    command: str
    limit: int | None = None
    has_out: bool = True
    evaluates: str = ""


def _score(model: str, task: str, file: str, limit: int | None = None, shots: str = "") -> Run:
    command = f"score --model {{data}}/models/{model} --task {task} --data {{data}}/{file}"
    if shots:
        command += f" --shots 3 --shots-data {{data}}/{shots}"
    return Run(f"{model}_{task}" + ("_3shot" if shots else ""), command, limit)


def _stories(model: str, limit: int) -> Run:
    command = f"score --model {{data}}/models/{model} --task multiple_choice"
    return Run(f"{model}_next_sentence", f"{command} --data {{runs}}/{NEXT_SENTENCE}", limit)


def _first_task(model: str, limit: int) -> Run:
    """The first of LegalBench's tasks alone: AUROCs over several tasks compare the tasks."""
    run = _score(model, "legalbench", "legalbench/legalbench_subset.jsonl.gz", limit)
    return dataclasses.replace(run, name=f"{model}_legalbench_abercrombie")


def _tuned(run: Run, model: str) -> Run:
    """The same beside the adapters that the model's fine-tuning left."""
    name = f"{model}_adapter" + run.name.removeprefix(f"{model}_adapter").removeprefix(model)
    return Run(name, f"{run.command} --adapter {{runs}}/{model}_finetune", run.limit)


def _groups(name: str, fields: str) -> Run:
    """Metrics of groups of a run's questions."""
    command = f"evaluate {{runs}}/{name} --by {fields} --combine --no-plots"
    return Run(f"{name}_groups", command, has_out=False, evaluates=name)


def _answers(model: str, name: str, options: str, limit: int) -> tuple[Run, Run]:
    """Generation and its scores."""
    answers = f"{model}_{name}_answers"
    generate = f"generate --model {{data}}/models/{model} {options} --samples 4 --ask"
    score = f"score --model {{data}}/models/{model} --generations {{runs}}/{answers}"
    return Run(answers, generate, limit), Run(f"{model}_{name}", score)


_TRIVIA = "--task triviaqa --data {data}/triviaqa/triviaqa_dev_1000.jsonl --shots 3 --max-tokens 12"
_POPQA = "--task popqa --data {data}/popqa/popqa_1000.jsonl --max-tokens 12"
_WORDS = f"--task open_qa --data {{runs}}/{LAST_WORD} --max-tokens 6 --stop . ! ? ,"
_TRAIN, _VALID = "tinystories/train_2316.txt.gz", "tinystories/valid_1910.txt.gz"
_TUNED = f"{SMALL}_finetune"
_TUNE = f"--data {{data}}/{_TRAIN} --steps 50"

RUNS = (
    Run("stories260K_inspect", "inspect {data}/models/stories260K", has_out=False),
    _score(SMALL, "truthfulqa_mc1", "truthfulqa/mc_task.json"),
    _score(LARGE, "truthfulqa_mc1", "truthfulqa/mc_task.json"),
    _score(SMALL, "commonsenseqa", "commonsenseqa/dev_rand_split.jsonl"),
    _score(LARGE, "commonsenseqa", "commonsenseqa/dev_rand_split.jsonl"),
    _score(SMALL, "mmlu", "mmlu/dev.csv"),
    _groups("stories260K_mmlu", "category"),
    _score(SMALL, "legalbench", "legalbench/legalbench_subset.jsonl.gz", 190),
    _groups("stories260K_legalbench", "task"),
    _first_task(SMALL, 95),
    _score(SMALL, "ag_news", "ag_news/test.csv.gz", 400),
    _score(LARGE, "ag_news", "ag_news/test.csv.gz", 200),
    _score(SMALL, "sst2", "sst2/dev.csv"),
    _score(LARGE, "sst2", "sst2/dev.csv", 400),
    _score(SMALL, "sst2", "sst2/dev.csv", 400, "sst2/train.csv"),
    _score(SMALL, "trec", "trec/test.csv"),
    _score(LARGE, "trec", "trec/test.csv", 200),
    _score(SMALL, "nli", "nli/snli_dev.csv.gz", 500),
    _score(LARGE, "nli", "nli/snli_dev.csv.gz", 300),
    _stories(SMALL, 500),
    _stories(LARGE, 300),
    *_answers(SMALL, "triviaqa", _TRIVIA, 200),
    *_answers(SMALL, "popqa", _POPQA, 200),
    _groups("stories260K_popqa", "s_pop"),
    *_answers(SMALL, "last_word", _WORDS, 400),
    *_answers(LARGE, "last_word", _WORDS, 300),
    _score(SMALL, "text", _VALID, 200),
    _score(LARGE, "text", _VALID, 100),
    Run(_TUNED, f"finetune --model {{data}}/models/{SMALL} {_TUNE} --merge"),
    Run(f"{_TUNED}_text",
        f"score --model {{runs}}/{_TUNED}/model --task text --data {{data}}/{_VALID}", 200),
    Run(f"{LARGE}_finetune", f"finetune --model {{data}}/models/{LARGE} {_TUNE}"),
    _tuned(_score(SMALL, "text", _VALID, 200), SMALL),
    _tuned(_score(SMALL, "sst2", "sst2/dev.csv"), SMALL),
    _tuned(_stories(SMALL, 500), SMALL),
    _tuned(_stories(LARGE, 300), LARGE),
    *(_tuned(run, SMALL) for run in _answers(SMALL, "adapter_last_word", _WORDS, 200)),
    Run("stories260K_kfac",
        f"fisher --model {{data}}/models/{SMALL} --data {{data}}/{_TRAIN} --kind kfac", 100),
    Run("stories260K_kfac_inspect", "inspect {runs}/stories260K_kfac", has_out=False),
)  # fmt: skip


def arguments(run: Run, data: pathlib.Path, runs: pathlib.Path) -> list[str]:
    """The command line after `fishjax`."""
    words = shlex.split(run.command.format(data=data, runs=runs))
    words += ["--limit", str(run.limit)] if run.limit else []
    return words + (["--out", str(runs / run.name)] if run.has_out else [])


def perform(run: Run, data: pathlib.Path, runs: pathlib.Path) -> dict[str, Any]:
    """Runs the command; what it took and printed."""
    shutil.rmtree(runs / run.name, ignore_errors=True)
    words = arguments(run, data, runs)
    print(f"fishjax {shlex.join(words)}", flush=True)
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "fishjax", *words],
        check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - begun
    print(f"{run.name}: {seconds:.0f} s, {spent:.0f} s of CPU", flush=True)
    return {
        "command": f"fishjax {run.command.format(data='$DATA', runs='$RUNS')}"
        + (f" --limit {run.limit}" if run.limit else ""),
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(spent, 1),
        "printed": done.stdout.replace(str(runs), "$RUNS").replace(str(data), "$DATA").splitlines(),
        **real_data_tables.facts(runs / run.name),
    }


def keep(run: Run, found: dict[str, Any], runs: pathlib.Path, out: pathlib.Path) -> None:
    """Copies what is committed."""
    folder = out / run.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    metrics = runs / (run.evaluates or run.name) / "metrics.json"
    if metrics.exists():
        shutil.copy(metrics, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/real"))
    parser.add_argument("--only", nargs="+", choices=[run.name for run in RUNS])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    chosen = [run for run in RUNS if args.only is None or run.name in args.only]
    if args.list:
        for run in chosen:
            print(f"fishjax {shlex.join(arguments(run, args.data, args.runs))}")
        return
    write_questions(args.data / _VALID, args.runs)
    if args.smoke:
        chosen = [dataclasses.replace(run, limit=4) if run.has_out else run for run in chosen]
    for run in chosen:
        found = perform(run, args.data, args.runs)
        if args.out is not None and not args.smoke:
            keep(run, found, args.runs, args.out)
    if args.out is not None and not args.smoke:
        real_data_tables.write(README, args.out, [run.name for run in RUNS])


if __name__ == "__main__":
    main()
