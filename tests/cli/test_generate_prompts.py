"""generate with solved examples, chat templates, adapters and meshes; score reads what it wrote."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tokenizers

from fishjax import models, runs, scores, tasks
from fishjax.cli import main
from fishjax.io import RunDirectoryError
from tests.models import hub

WORDS = [
    *("<unk>", "<s>", "</s>", "<user>", "<bot>", "(A)", "(B)"),
    *("cat", "dog", "cow", "hen", "eat", "see", "run"),
]
TEMPLATE = (
    "{% if 'forbidden' in messages[0].content %}{{ raise_exception('not this') }}{% endif %}"
    "{{ bos_token }} <user> {{ messages[0].content }} <bot>"
)
PAIRS = [("cat", "eat"), ("dog", "see"), ("cow", "run"), ("hen", "eat"), ("cat", "run")]


QUESTIONS = [
    {"id": f"o{i}", "question": f"{first} {second}", "answers": [first]}
    for i, (first, second) in enumerate(PAIRS)
]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A model with a chat template, whose tokenizer begins plain texts with <s> itself."""
    directory = tmp_path_factory.mktemp("chatty") / "model"
    hub.write(directory, "llama", config={"max_position_embeddings": 128})
    words = {word: i for i, word in enumerate(WORDS)}
    words |= {f"w{i}": i for i in range(len(words), 40)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "chat_template": TEMPLATE,
    }  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "open.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return path


def options(model, data, **more):
    return dict(model=model, task="open_qa", data=data, max_tokens=4, quiet=True) | more


def rows_of(directory):
    return [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]


def score_options(model, generations, out):
    return dict(model=model, generations=generations, out=out, quiet=True, no_plots=True)


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_have_examples_and_chat_template(chatty, data, tmp_path, chat):
    chosen = options(chatty, data, shots=2, chat=chat, out=tmp_path / "out")
    rows = rows_of(runs.generate(**chosen))
    tokenizer = models.load(chatty).tokenizer
    asked = tasks.load_open_task("open_qa", data)
    for row, question in zip(rows, tasks.few_shot(asked, asked, 2, 0), strict=True):
        first, second, own = question.context.split("\n\n")
        assert own == "{} {}".format(*PAIRS[row["index"]])
        for example in (first, second):
            assert tuple(example.split()[:2]) in PAIRS
            assert example.split()[:2] != own.split()
            assert example.split()[2] == example.split()[0]  # its first answer
        text = f"<user> {question.context} <bot>" if chat else question.context
        assert row["prompt_ids"] == tokenizer.encode(text, bos=True)
        assert row["prompt_ids"].count(tokenizer.bos_id) == 1
        assert not row["truncated"]
    scored = runs.score(**score_options(chatty, tmp_path / "out", tmp_path / "scored"))
    for row, made in zip(rows_of(scored), rows, strict=True):
        count = made["greedy"]["num_answer_tokens"]
        total = np.sum(made["greedy"]["log_likelihoods"][:count])
        np.testing.assert_allclose(row["answers"][0]["log_likelihood"], total, rtol=1e-4)


def test_a_run_with_other_prompts_is_not_resumed(chatty, data, tmp_path, jsonl):
    chosen = options(chatty, data, shots=1, out=tmp_path / "out", limit=2)
    runs.generate(**chosen)
    others = jsonl(tmp_path / "more.jsonl", [{"question": "see cow", "answers": ["hen"]}])
    for change, message in (
        ({"shots": 0}, "shots is 1 there and 0 here"),
        ({"chat": True}, "chat is False there and True here"),
        ({"shots_data": others}, "prompts_sha256 is '[0-9a-f]+' there"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            runs.generate(**chosen | change)
    ends = chatty / "generation_config.json"
    ends.write_text('{"eos_token_id": [5, 2]}')
    with pytest.raises(RunDirectoryError, match=r"end_ids is \[2\] there and \[2, 5\] here"):
        runs.generate(**chosen)
    ends.unlink()
    before = (tmp_path / "out/rows.jsonl").read_bytes()
    runs.generate(**chosen)
    assert (tmp_path / "out/rows.jsonl").read_bytes() == before


def test_asking_speaks_the_chat_template(chatty, data, tmp_path):
    chosen = options(chatty, data, shots=1, chat=True, ask=True, samples=2, limit=2)
    rows = rows_of(runs.generate(**chosen, out=tmp_path / "out"))
    model = models.load(chatty)
    for row, pair in zip(rows, PAIRS, strict=False):
        ideas = [sample["text"] for sample in row["samples"]]
        prompt = scores.p_true_prompt(" ".join(pair), row["answer"], ideas)
        ids = model.tokenizer.encode(f"<s> <user> {prompt} <bot>", bos=False)
        assert ids[:2] == [WORDS.index("<s>"), WORDS.index("<user>")]
        true, false = model.apply_fn(model.params, np.array([ids]))[0, -1][
            np.array([WORDS.index("(A)"), WORDS.index("(B)")])
        ]
        assert row["p_true"] == pytest.approx(scores.p_true(float(true), float(false)), rel=1e-4)
        prompt = scores.verbalised_prompt(" ".join(pair), row["answer"])
        ids = model.tokenizer.encode(f"<s> <user> {prompt} <bot>", bos=False)
        (reply,) = models.generate(model, [ids], models.Sampling(16, stop=("\n",)))
        assert row["verbalised_reply"] == reply.text


def test_answers_of_an_adapter_are_scored_with_it(chatty, data, tmp_path, capsys):
    model = models.load(chatty)
    lora = models.LoraConfig(rank=2, alpha=8.0, targets=("attention/query", "mlp/up"))
    adapters = models.init_adapters(dataclasses.replace(model.config, lora=lora), jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.5, adapters)
    folder = tmp_path / "adapter"
    models.save_adapter(folder, adapters, lora, model)
    made = runs.generate(**options(chatty, data, adapter=folder, limit=3, out=tmp_path / "out"))
    rows = rows_of(made)
    merged = models.merged(models.adapted(model, lora, adapters))
    sampling, prompts = models.Sampling(4, stop=("\n",)), [row["prompt_ids"] for row in rows]
    expected, plain = (
        [list(one.token_ids) for one in models.generate(m, prompts, sampling)]
        for m in (merged, model)
    )
    assert [row["greedy"]["token_ids"] for row in rows] == expected != plain
    chosen = score_options(chatty, made, tmp_path / "scored")
    assert main(["score", "--model", str(chatty), "--generations", str(made), "--out", "x"]) == 2
    assert "generated with an adapter that is not this one" in capsys.readouterr().err
    for row, source in zip(rows_of(runs.score(**chosen, adapter=folder)), rows, strict=True):
        count = source["greedy"]["num_answer_tokens"]
        total = np.sum(source["greedy"]["log_likelihoods"][:count])
        np.testing.assert_allclose(row["answers"][0]["log_likelihood"], total, rtol=1e-4)


MESH = """
import os
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"  # to those of conftest.py
import sys
from fishjax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_mesh_writes_the_same_answers(chatty, data, tmp_path):
    """Five questions in batches of three on four by two devices: rows that fill up are dropped."""
    chosen = options(chatty, data, batch=3, samples=1, ask=True, chat=True)
    expected = rows_of(runs.generate(**chosen, out=tmp_path / "one"))
    words = [w for n in ("model", "task", "data") for w in (f"--{n}", str(chosen[n]))]
    words += ["--batch", "3", "--samples", "1", "--max-tokens", "4", "--ask", "--chat", "--quiet"]
    words += ["--mesh", "data=4,model=2", "--out", str(tmp_path / "many")]
    command = [sys.executable, "-c", MESH, "generate", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for row, one in zip(rows_of(tmp_path / "many"), expected, strict=True):
        for part, other in zip([row.pop("greedy"), *row.pop("samples")],
                               [one.pop("greedy"), *one.pop("samples")], strict=True):  # fmt: skip
            values, others = part.pop("log_likelihoods"), other.pop("log_likelihoods")
            np.testing.assert_allclose(values, others, rtol=1e-4, atol=1e-5)
            assert part == other
        assert row.pop("p_true") == pytest.approx(one.pop("p_true"), rel=1e-4)
        assert row == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": 9}, "5 of 5 questions can be examples: expected 9"),
        (
            {"shots": 5},
            "question 'o0': 4 of 5 examples have another id .* expected 5",
        ),
        ({"shots_data": "none.jsonl"}, "--shots-data without --shots: say how many"),
        ({"shots": 1, "shots_data": "none.jsonl"}, "none.jsonl"),
        ({"max_tokens": 128}, "the context of model is 128 tokens and a prompt needs some"),
        ({"adapter": "none"}, "no adapter at none: expected the directory of a finished"),
        ({"mesh": "rows=2"}, "--mesh rows=2: expected data=N,model=M"),
    ],
)
def test_bad_options(chatty, data, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        runs.generate(**options(chatty, data, out=tmp_path / "out") | change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", {"shots": 1}, "is empty"),
        (
            '{"question": "cat", "answers": ["dog"]}\n',
            {"shots": 1},
            "0 of 1 examples have",
        ),
        ('{"question": "forbidden", "answers": ["dog"]}\n', {"chat": True}, "refuses .*not this"),
    ],
)
def test_bad_data(chatty, tmp_path, text, more, message):
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        runs.generate(**options(chatty, tmp_path / "q.jsonl", **more, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_models_without_template_or_room(tiny, make_model, data, tmp_path, jsonl):
    """A context of five tokens still answers; there is no asking in it."""
    small = make_model(tmp_path / "small", "\n", context_length=5)
    asked = jsonl(tmp_path / "q.jsonl", [{"question": "cat eat cow run hen", "answers": ["cat"]}])
    chosen = options(small, asked, max_tokens=2)
    (row,) = rows_of(runs.generate(**chosen, out=tmp_path / "out"))
    assert row["truncated"]
    assert len(row["prompt_ids"]) == 3
    assert len(row["greedy"]["token_ids"]) <= 2
    (scored,) = rows_of(runs.score(**score_options(small, tmp_path / "out", tmp_path / "scored")))
    assert scored["status"] == "ok"
    for change, message in (
        ({"ask": True}, "--ask: a reply needs 16 tokens .* the context of tiny has 5"),
        ({"chat": True}, "--chat: the model has no chat template"),
    ):
        with pytest.raises(ValueError, match=message):
            runs.generate(**chosen, **change, out=tmp_path / "other")
    with pytest.raises(ValueError, match="--shots and --chat make prompts of questions"):
        runs.score(model=tiny.model, task="text", data=data, chat=True, out=tmp_path / "other")
    foreign = {"id": "u", "question": "dog", "answers": ["Zürich 日本"]}
    unread = jsonl(tmp_path / "u.jsonl", [foreign])
    with pytest.raises(ValueError, match="is not in the vocabulary"):
        runs.generate(**chosen, shots=1, shots_data=unread, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
