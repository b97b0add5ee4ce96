"""Damaged files of every format: what they raise is foreseen, whatever the bytes.

Every case mutates a valid file and reads it. `FUZZ_CASES` sets the number of cases a format, 20
unless told; `make fuzz` runs 2,000 of each.
"""

import dataclasses
import gzip
import json
import os

import hypothesis
import jax
import jax.numpy as jnp
import pytest
import tokenizers
from hypothesis import strategies as st

from fishjax import io, models
from fishjax.io.checkpoints import load_tree, save_tree
from fishjax.models.hub_tokenizer import read_hub_tokenizer
from fishjax.tasks import TaskError, load_open_task, load_task, read_documents
from tests.models import hub

CASES = int(os.environ.get("FUZZ_CASES", "20"))

QUESTION = {"id": "a", "question": "Q", "choices": ["x", "y"], "answer": 1}
JSONL = {
    "multiple_choice": QUESTION,
    "commonsenseqa": {
        "id": "a",
        "answerKey": "B",
        "question": {
            "stem": "S",
            "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
        },
    },
    "open_qa": {"question": "Q", "answers": ["x", "é"]},
    "triviaqa": {"id": "t", "question": "Q", "golden_answers": ["x"]},
    "legalbench": {"task": "t", "split": "test", "text": "T", "answer": "yes"},
    "trec": {"text": "T", "coarse_label": 5},
}
CSV = {
    "mmlu": "subject,category,question,A,B,C,D,answer\ns,c,q,a,b,c,d,A\n",
    "sst2": "text,label\nfine,1\n",
    "nli": 'premise,hypothesis,label\n"a, b",c,2\n',
}


def tokenizer_bytes():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return tokenizer.to_str().encode()


def formats(folder):
    """name -> (file to damage, its valid bytes, how it is read, what may be raised)."""
    found = {}

    def add(name, path, data, read, errors):
        found[name] = path, data, read, errors

    for name, record in JSONL.items():
        path = folder / f"{name}.jsonl"
        load = load_open_task if name in ("open_qa", "triviaqa") else load_task
        line = (json.dumps(record) + "\n").encode()
        add(name, path, line, lambda p, n=name, f=load: f(n, p), TaskError)
    (folder / "base_prompts.json").write_text(json.dumps({"t": "Is {{text}}?"}))
    for name, text in CSV.items():
        path = folder / f"{name}.csv"
        add(name, path, text.encode(), lambda p, n=name: load_task(n, p), TaskError)
    tsv = 'id\tquestion\tpossible_answers\n1\tQ\t"[""x""]"\n'
    add(
        "popqa", folder / "popqa.tsv", tsv.encode(), lambda p: load_open_task("popqa", p), TaskError
    )
    record = {"question": "Q", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 0]}}
    lines = (json.dumps(record) + "\n").encode()
    path = folder / "hub.jsonl"
    add("truthfulqa_hub", path, lines, lambda p: load_task("truthfulqa_mc1", p), TaskError)
    truthful = [{"question": "Q", "mc1_targets": {"x": 1, "y": 0}, "mc2_targets": {"x": 1}}]
    path = folder / "mc.json"
    data = json.dumps(truthful).encode()
    add("truthfulqa", path, data, lambda p: load_task("truthfulqa_mc1", p), TaskError)
    add("text", folder / "t.txt", b"one\n<|endoftext|>\ntwo", read_documents, TaskError)
    zipped = gzip.compress(b"one two three", mtime=0)
    add("gzip", folder / "t.txt.gz", zipped, read_documents, TaskError)
    checkpoint = hub.write(folder / "model", "llama")
    for name in ("config.json", "model.safetensors"):
        errors = (models.CheckpointError, models.TokenizerError)
        path = checkpoint / name
        add(name, path, path.read_bytes(), lambda p: models.load(p.parent), errors)
    directory = folder / "tokenizer"
    directory.mkdir()
    add(
        "tokenizer.json",
        directory / "tokenizer.json",
        tokenizer_bytes(),
        lambda p: read_hub_tokenizer(p.parent, {"eos_token_id": 0}),
        models.TokenizerError,
    )
    run = folder / "run"
    run.mkdir()
    manifest = {"settings": {"schema_version": 1, "seed": 0}, "num_questions": 1}
    add("run.json", run / "run.json", json.dumps(manifest).encode(), read_run, io.RowsError)
    save_tree(run / "states", {"a": jnp.arange(6.0).reshape(2, 3), "b": [1, "text"]})
    for name, path in (
        ("structure.json", run / "states" / "structure.json"),
        ("_METADATA", run / "states" / "arrays" / "_METADATA"),
        ("manifest.ocdbt", run / "states" / "arrays" / "manifest.ocdbt"),
    ):
        add(name, path, path.read_bytes(), lambda p: load_tree(run / "states"), io.RowsError)
    adapter_of, adapter = add_adapter(folder / "adapter", checkpoint)
    for path in sorted(adapter.iterdir()):
        add(path.name, path, path.read_bytes(), adapter_of, models.CheckpointError)
    row = (json.dumps({"schema_version": 1, "index": 0}) + "\n").encode()
    add("rows.jsonl", run / "rows.jsonl", row, lambda p: io.read_rows(p, 1), io.RowsError)
    return found


def add_adapter(directory, checkpoint):
    """A PEFT directory, and how a file of it is read."""
    model = models.load(checkpoint)
    lora = models.LoraConfig(rank=2, alpha=4.0)
    config = dataclasses.replace(model.config, lora=lora)
    models.save_adapter(directory, models.init_adapters(config, jax.random.key(0)), lora, model)
    return lambda p: models.load_adapter(p.parent, model), directory


def read_run(path):
    return io.read_manifest(path.parent)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return formats(tmp_path_factory.mktemp("fuzz"))


NAMES = (*JSONL, *CSV, "truthfulqa", "text", "gzip", "config.json", "model.safetensors",
         "tokenizer.json", "run.json", "rows.jsonl", "structure.json", "_METADATA",
         "manifest.ocdbt", "adapter_config.json", "adapter_model.safetensors")  # fmt: skip

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "truncate", "repeat"]),
        st.floats(0, 1),
        st.integers(1, 40),
        st.one_of(
            st.binary(max_size=8),
            st.sampled_from(
                [b'"', b"{", b"}", b"[", b"null", b"1e999", b"-1", b"\xff", b"\\ud800", b"\n", b","]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data, changes):
    for kind, place, size, new in changes:
        at = int(place * len(data))
        if kind == "flip":
            data = data[:at] + bytes(b ^ (size & 0xFF) for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + size :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "truncate":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + size] * 2 + data[at + size :]
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damage_is_foreseen(name, files):
    path, data, read, errors = files[name]
    path.write_bytes(data)
    read(path)

    @hypothesis.settings(max_examples=CASES, deadline=None, database=None)
    @hypothesis.given(changes=edits)
    def case(changes):
        path.write_bytes(damaged(data, changes))
        try:
            read(path)
        except errors as error:
            assert len(str(error)) > 10  # noqa: PT017
            assert "Traceback" not in str(error)  # noqa: PT017

    try:
        case()
    finally:
        path.write_bytes(data)
