"""`fishjax score --task text`: every token once, documents put together, values of tokens."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import models
from fishjax.cli import main

DOCUMENTS = ["cat eat dog run " * 12, "hen see cow", "cow " * 30]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def scored(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    data = folder / "corpus.txt"
    data.write_text("\n<|endoftext|>\n".join(DOCUMENTS))
    out = folder / "out"
    words = ["score", "--model", str(tiny.model), "--task", "text", "--data", str(data)]
    options = ["--out", str(out), "--per-token", "--stride", "20", "--quiet"]
    assert main([*words, *options]) == 0
    return out


def test_every_token_is_scored_given_the_context_that_fits(tiny, scored):
    model = models.load(tiny.model)
    context = model.config.context_length
    rows = lines_of(scored / "rows.jsonl")
    for number, document in enumerate(DOCUMENTS):
        ids = model.tokenizer.encode(document.strip(), bos=True)
        parts = [row for row in rows if row["id"].startswith(f"{number}:")]
        tokens = [x for row in parts for x in row["tokens"]["log_likelihoods"]]
        assert len(tokens) == len(ids) - 1
        first = min(context, len(ids) - 1)
        log_probs = jax.nn.log_softmax(model.apply_fn(model.params, np.array([ids[:first]]))[0])
        expected = np.take_along_axis(np.asarray(log_probs), np.array(ids[1:])[:first, None], 1)
        np.testing.assert_allclose(tokens[:first], expected[:, 0], rtol=1e-4, atol=1e-5)
        assert len(parts) == 1 + -(-max(len(ids) - 1 - context, 0) // 20)


def test_norms_of_single_tokens_are_exact(tiny, scored):
    model = models.load(tiny.model)
    row = next(r for r in lines_of(scored / "rows.jsonl") if r["id"] == "1:0")
    ids = jnp.array(model.tokenizer.encode(DOCUMENTS[1], bos=True))

    def log_prob(params, place):
        logits = model.apply_fn(params, ids[None])[0, place]
        return jax.nn.log_softmax(logits)[ids[place + 1]]

    for place, found in enumerate(row["tokens"]["log_squared_norms"]):
        gradient = jax.grad(log_prob)(model.params, place)
        expected = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient))
        assert found == pytest.approx(np.log(expected), abs=1e-3)


def test_documents_and_totals(scored):
    rows, documents = (lines_of(scored / f"{n}.jsonl") for n in ("rows", "documents"))
    metrics = json.loads((scored / "metrics.json").read_text())
    assert not metrics.keys() & {"accuracy", "scores", "calibration", "class_balance"}
    text = metrics["text"]
    assert [line["document"] for line in documents] == [0, 1, 2]
    total = sum(row["answers"][0]["log_likelihood"] for row in rows)
    tokens = sum(row["answers"][0]["num_tokens"] for row in rows)
    assert text["num_tokens"] == tokens == sum(line["num_tokens"] for line in documents)
    assert (text["num_documents"], text["num_windows"]) == (3, len(rows))
    assert text["mean_log_likelihood"] == pytest.approx(total / tokens)
    assert text["perplexity"] == pytest.approx(np.exp(-total / tokens), rel=1e-6)
    # begin-of-sequence comes first, so every byte of every document is scored
    sizes = [len(document.strip().encode()) for document in DOCUMENTS]
    assert [line["num_bytes"] for line in documents] == sizes
    assert text["num_bytes"] == sum(sizes)
    assert text["bits_per_byte"] == pytest.approx(-total / math.log(2) / sum(sizes))
    for line in documents:
        expected = np.exp(-line["log_likelihood"] / line["num_tokens"])
        assert line["perplexity"] == pytest.approx(expected, rel=1e-5)
        bits = -line["log_likelihood"] / line["num_bytes"] / math.log(2)
        assert line["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    spread = [line["perplexity"] for line in documents]
    found = text["document_perplexity"]
    assert found["median"] == pytest.approx(np.median(spread))
    assert (found["lowest"], found["highest"]) == pytest.approx((min(spread), max(spread)))


def test_the_norm_of_a_document_is_that_of_its_windows(tiny, scored):
    model = models.load(tiny.model)
    ids = jnp.array(model.tokenizer.encode(DOCUMENTS[1], bos=True))

    def log_likelihood(params):
        log_probs = jax.nn.log_softmax(model.apply_fn(params, ids[None, :-1])[0])
        return jnp.take_along_axis(log_probs, ids[1:, None], axis=1).sum()

    expected = sum(
        float(jnp.sum(g**2)) for g in jax.tree.leaves(jax.grad(log_likelihood)(model.params))
    )
    assert lines_of(scored / "documents.jsonl")[1]["log_squared_norm"] == pytest.approx(
        np.log(expected), abs=1e-4
    )


def test_plots_say_nothing_of_right_answers(scored):
    names = {path.name for path in (scored / "plots").iterdir()}
    assert names == {"perplexity.png", "hot_spots.png", "hottest_window.png"}
    for name in names:
        assert (scored / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_evaluate_says_the_totals_and_refuses_what_needs_right_answers(scored, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(scored, copy)
    before = (copy / "metrics.json").read_bytes()
    assert main(["evaluate", str(copy), "--combine"]) == 2
    assert "--combine predicts right answers: plain text has none" in capsys.readouterr().err
    assert main(["evaluate", str(copy), "--no-plots"]) == 0
    assert (copy / "metrics.json").read_bytes() == before
    text = json.loads(before)["text"]
    said = capsys.readouterr().out
    assert said.startswith(f"3 documents, {text['num_tokens']} tokens, log-likelihood -")
    assert f"perplexity {text['perplexity']:.4f} (of a document: median" in said
    assert f"{text['bits_per_byte']:.4f} bits per byte of {text['num_bytes']}" in said
    assert "accuracy" not in said


def test_rows_of_earlier_versions_lack_bytes_only(scored, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(scored, copy)
    rows = [json.dumps({k: v for k, v in r.items() if k not in ("document_bytes", "metadata")})
            for r in lines_of(copy / "rows.jsonl")]  # fmt: skip
    (copy / "rows.jsonl").write_text("\n".join(rows) + "\n")
    assert main(["evaluate", str(copy), "--no-plots"]) == 0
    assert "bits per byte unknown (rows of an earlier fishjax)" in capsys.readouterr().out
    old, new = (json.loads((d / "metrics.json").read_text())["text"] for d in (copy, scored))
    assert old == new | {"num_bytes": None, "bits_per_byte": None}


def test_a_trial_reads_the_beginning_of_a_long_document(tiny, tmp_path, capsys):
    data = tmp_path / "long.txt"
    data.write_text("cat eat dog run " * 500)
    words = ["score", "--model", str(tiny.model), "--task", "text", "--data", str(data)]
    options = [
        "--parameters",
        "final_norm",
        "--max-characters",
        "201",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*words, *options]) == 0
    printed = capsys.readouterr()
    (line,) = lines_of(tmp_path / "o" / "documents.jsonl")
    model = models.load(tiny.model)
    assert line["num_bytes"] == 201
    assert line["num_tokens"] == len(model.tokenizer.encode(data.read_text()[:201], bos=False))
    assert f"plan: {line['num_windows']} windows, " in printed.err
    assert line["num_windows"] > 1
    assert {p.name for p in (tmp_path / "o" / "plots").iterdir()} == {
        "perplexity.png", "hot_spots.png"
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--stride", "--max-characters"])
def test_options_of_text_are_refused_elsewhere(tiny, tmp_path, option, capsys):
    assert main([*tiny.score_arguments(tmp_path / "out"), option, "4"]) == 2
    assert "are of plain text: expected --task text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_text_is_among_the_tasks(capsys):
    assert main(["tasks"]) == 0
    score_tasks = capsys.readouterr().out.split("fishjax generate")[0]
    (line,) = [line for line in score_tasks.splitlines() if line.startswith("│ text ")]
    assert "<|endoftext|>" in line
