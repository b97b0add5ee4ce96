"""Rows of `fishjax score` on real data against prompts and probabilities made without fishjax.

The prompt is written here from the file, the forward pass is NumPy's in float64, one unpadded
sequence at a time: nothing of batching, padding, masks and positions is shared.
"""

import csv
import gzip
import json

import numpy as np
import pytest

from experiments import real_data, real_data_tables, story_questions
from fishjax import models
from fishjax.cli.main import command_parsers, main
from tests.models import numpy_llama

STORIES = [
    'Anna had a ball. She saw Tom. "Hi!" said Tom. Anna gave Tom the ball. He took the ball. Bye.',
    "A cat sat. It was sad. It ate fish. It sat on a mat. Then it slept. End.",
    "Sam ran. Sam fell. He cried. Mom came. Mom helped Sam. Good.",
    "One day a dog barked. It was loud. Lily woke. She ran out. The dog ran home. Late.",
    "Too short. Really.",
]


def reviews(data):
    """Two sentences of different length."""
    with (data / "sst2" / "dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:2]
    ask = "Question: Is this sentence positive or negative?\nAnswer:"
    words = ("negative", "positive")
    return [(f"{row['text'].strip()}\n{ask}", words, int(row["label"])) for row in rows]


def law(data):
    """A question longer than the context: its prompt loses its beginning."""
    with gzip.open(data / "legalbench" / "legalbench_subset.jsonl.gz", "rt") as file:
        row = next(row for row in map(json.loads, file) if row["split"] == "test")
    template = json.loads((data / "legalbench" / "base_prompts.json").read_text())[row["task"]]
    marks = ("arbitrary", "descriptive", "fanciful", "generic", "suggestive")
    return [(template.replace("{{text}}", row["text"]), marks, marks.index(row["answer"]))]


TASKS = {
    "sst2": ("sst2/dev.csv", reviews),
    "legalbench": ("legalbench/legalbench_subset.jsonl.gz", law),
}


def log_likelihood(model, prompt, answer):
    """Of " " + answer after the prompt, in nats, cut on the left to what the model reads."""
    given = model.tokenizer.encode(prompt, bos=True)
    whole = model.tokenizer.encode(f"{prompt} {answer}", bos=True)
    targets = whole[len(given) :]
    read = whole[-(model.config.context_length + 1) : -1]
    logits = numpy_llama.forward(model.params, read)[-len(targets) :]
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return log_probs[np.arange(len(targets)), targets].sum()


@pytest.mark.shared
@pytest.mark.parametrize("task", TASKS)
def test_rows_are_what_one_sequence_at_a_time_gives(task, shared_data, tmp_path):
    file, read = TASKS[task]
    path = shared_data / "models" / "stories260K"
    asked = read(shared_data)
    status = main(
        ["score", "--model", str(path), "--task", task, "--data", str(shared_data / file),
         "--limit", str(len(asked)), "--parameters", "final_norm", "--no-plots", "--quiet",
         "--out", str(tmp_path / "run")]
    )  # fmt: skip
    assert status == 0
    model = models.load(path)
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    for row, (prompt, answers, truth) in zip(
        sorted(rows, key=lambda row: row["index"]), asked, strict=True
    ):
        found = [answer["log_likelihood"] for answer in row["answers"]]
        for index in {0, truth}:  # NumPy takes seconds for each
            assert abs(found[index] - log_likelihood(model, prompt, answers[index])) < 1e-4
        assert row["labels"] == [int(index == truth) for index in range(len(answers))]
        assert row["correct"] == (np.argmax(found) == truth)


def test_a_next_sentence_is_asked_of_stories_that_are_long_enough():
    questions = story_questions.next_sentences(STORIES)
    assert len(questions) == 4
    first = questions[0]
    assert first["question"].endswith("said Tom. Anna gave Tom the ball.")
    assert first["choices"][first["answer"]] == "He took the ball."
    wrong = {"Then it slept.", "Mom helped Sam.", "The dog ran home."}
    assert {*first["choices"]} == wrong | {"He took the ball."}
    assert story_questions.next_sentences(STORIES, seed=0) == questions
    places = {question["answer"] for question in questions}
    assert len(places) > 1


def test_a_last_word_was_said_before():
    questions = story_questions.last_words(STORIES)
    # Sentences of fewer than three letters at the end ("mat", "Sam" have three) are passed over.
    assert questions[0]["answers"] == ["Tom"]
    assert questions[0]["question"].endswith('"Hi!" said')
    assert [question["answers"][0] for question in questions] == ["Tom", "Sam"]


def test_every_run_has_its_own_name_and_known_options(tmp_path):
    names = [run.name for run in real_data.RUNS]
    assert len(set(names)) == len(names)
    for run in real_data.RUNS:
        words = real_data.arguments(run, tmp_path / "data", tmp_path / "runs")
        options = vars(command_parsers()[words[0]].parse_args(words[1:]))
        assert options.get("limit") == run.limit
        assert options.get("out") == (str(tmp_path / "runs" / run.name) if run.has_out else None)


def test_tables_take_the_place_between_the_marks(tmp_path):
    area = {"auroc": 0.61, "interval": [0.5, 0.7]}
    scores = {"perplexity": area, "epistemic": {"auroc": None, "interval": None}}
    metrics = {"accuracy": 0.25, "num_scored": 8, "num_truncated": 1, "scores": scores}
    kept = {
        "command": "fishjax score",
        "cpu_seconds": 12.3,
        "printed": [],
        "chance": 0.2,
        "favourite": 1,
    }
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "one" / "command.json").write_text(json.dumps(kept))
    group = {"num_scored": 4, "accuracy": 0.5, "scores": scores, "note": None}
    groups = [
        group | {"low": 3.0, "high": 7.0},
        group | {"value": "law", "scores": {"epistemic": area | {"interval": None}}, "note": "few"},
    ]
    (tmp_path / "one_groups").mkdir()
    (tmp_path / "one_groups" / "metrics.json").write_text(
        json.dumps({"by": {"year": {"groups": groups}}})
    )
    told = {"command": "fishjax evaluate", "cpu_seconds": 1.0, "printed": ["never shown"]}
    (tmp_path / "one_groups" / "command.json").write_text(json.dumps(told))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{real_data_tables.BEGIN}\nold\n{real_data_tables.END}\nafter\n")
    for _ in range(2):
        real_data_tables.write(readme, tmp_path, ["one", "one_groups", "not kept"])
    text = readme.read_text()
    assert "| one | 8 | 1 | 0.250 | 0.200 | 1.00 | 0.61 [0.50, 0.70] | – | – | – | – | 12 |" in text
    assert "| one | year | 3 to 7 | 4 | 0.500 | – | – | 0.61 [0.50, 0.70] |  |" in text
    assert "| one | year | law | 4 | 0.500 | 0.61 | – | – | few |" in text
    assert "never shown" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
