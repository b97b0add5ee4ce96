"""--adapter: score and generate read whatever finetune left; what does not fit is told apart."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from fishjax import models, runs
from fishjax.cli import main
from fishjax.cli.adapters import adapter_hash, find_adapter
from fishjax.cli.errors import InputError
from fishjax.io.checkpoints import load_tree

from .stages import write_corpus, write_hub_model, write_open_questions

LORA = models.LoraConfig(2, 4.0, ("attention/query", "mlp/up"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


def tune(model, folder, name, **more):
    """Two steps that move everything they may."""
    if not more:
        more = dict(lora_rank=LORA.rank, lora_targets=list(LORA.targets))
    corpus = write_corpus(folder / "corpus.txt", 4)
    return runs.finetune(
        model=model, data=corpus, out=folder / name, length=8, batch=2, steps=2, learning_rate=0.3,
        quiet=True, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tiny, folder):
    """Of a llama2.c checkpoint; read only."""
    return tune(tiny.model, folder, "tuned")


@pytest.fixture(scope="module")
def hub(folder):
    return write_hub_model(folder / "hub")


@pytest.fixture(scope="module")
def tuned_hub(hub, folder):
    """Of a Hugging Face directory; read only."""
    return tune(hub, folder, "tuned_hub")


@pytest.fixture
def copied(tuned, tmp_path):
    return pathlib.Path(shutil.copytree(tuned, tmp_path / "copy"))


def rows_of(directory):
    return [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]


def test_answers_with_the_adapters_of_a_llama2c_run(tiny, tuned, folder):
    """Generated as the merged model does, and scored under another name of the same adapters."""
    data = write_open_questions(folder / "open.jsonl", 2)
    made = runs.generate(
        model=tiny.model, task="open_qa", data=data, adapter=tuned, max_tokens=4, quiet=True,
        out=folder / "answers",
    )  # fmt: skip
    base = models.load(tiny.model)
    merged = models.merged(models.adapted(base, LORA, load_tree(tuned / "adapters")))
    rows = rows_of(made)
    prompts = [row["prompt_ids"] for row in rows]
    expected = models.generate(merged, prompts, models.Sampling(4, stop=("\n",)))
    assert [tuple(row["greedy"]["token_ids"]) for row in rows] == [x.token_ids for x in expected]
    scored = runs.score(
        model=tiny.model, generations=made, adapter=tuned / "adapters", quiet=True, no_plots=True,
        out=folder / "scored",
    )  # fmt: skip
    for row, source in zip(rows_of(scored), rows, strict=True):
        count = source["greedy"]["num_answer_tokens"]
        total = np.sum(source["greedy"]["log_likelihoods"][:count])
        np.testing.assert_allclose(row["answers"][0]["log_likelihood"], total, rtol=1e-4)
        assert all("_lora_" in path for path in row["by_parameter"])
        assert np.isfinite(row["scores"]["log_sequence_epistemic"])
    settings = json.loads((scored / "run.json").read_text())["settings"]
    assert settings["parameters"] == "*_lora_*"
    assert settings["adapter_sha256"] == adapter_hash(tuned)


def test_all_that_finetune_leaves_is_the_same_adapter(hub, tuned_hub, monkeypatch):
    """The run, its tree, its PEFT directory, absolute or not; on no device of its own."""
    base = models.load(hub)
    monkeypatch.chdir(tuned_hub)
    places = (tuned_hub, tuned_hub / "adapters", tuned_hub / "peft", pathlib.Path("adapters"))
    found = [find_adapter(place).beside(base) for place in (*places, pathlib.Path("peft"))]
    for model in found:
        assert model.config == found[0].config
        jax.tree.map(np.testing.assert_array_equal, model.params, found[0].params)
    leaves = jax.tree.leaves(models.split(found[0].params)[1])
    assert len(leaves) == 4
    assert all(np.any(leaf) and not leaf.committed for leaf in leaves)
    own = {adapter_hash(place) for place in (tuned_hub, tuned_hub / "adapters")}
    assert len(own) == 1
    assert adapter_hash(tuned_hub / "peft") not in own


def test_the_hash_tells_adapters_apart(tuned, copied):
    assert adapter_hash(copied) == adapter_hash(tuned)
    change(copied, lora={"rank": 2, "alpha": 5.0})
    assert adapter_hash(copied) != adapter_hash(tuned)


def change(run, **settings):
    path = run / "run.json"
    manifest = json.loads(path.read_text())
    for name, value in settings.items():
        old = manifest["settings"][name]
        manifest["settings"][name] = old | value if isinstance(old, dict) and value else value
    path.write_text(json.dumps(manifest))


def test_the_adapter_of_another_model_is_refused(tiny, tuned, tuned_hub, make_model, tmp_path):
    """Though all shapes fit."""
    other = models.load(make_model(tmp_path / "other", context_length=64))
    message = r"were trained on tiny \(SHA-256 \w{12}\), and the model is tiny .*: give --model"
    with pytest.raises(InputError, match=message):
        find_adapter(tuned).beside(other)
    base = models.load(tiny.model)
    for place in (tuned_hub, tuned_hub / "peft"):
        with pytest.raises(InputError, match=r"were trained on hub .*the checkpoint that was"):
            find_adapter(place).beside(base)


def test_directories_without_a_usable_adapter(tiny, tuned, copied, finished_run, folder, tmp_path):
    full = tune(tiny.model, folder, "full", full=True)
    alone = shutil.copytree(tuned / "adapters", tmp_path / "alone")
    (tmp_path / "empty").mkdir()
    unfinished = tmp_path / "unfinished"
    shutil.copytree(tuned, unfinished, ignore=shutil.ignore_patterns("adapters"))
    cases = {
        "org/name": "no adapter at org/name: expected .*adapters of the Hugging Face hub are not",
        tmp_path / "empty": "holds no adapter: expected the directory of a finished",
        finished_run: "is no run of `fishjax finetune`: expected",
        full: "trained all parameters .*leave out --adapter and give --model .*full/model",
        unfinished: "is not finished: run the same `fishjax finetune` again",
        alone: "no run.json .* is beside it .*: give the directory of the whole run",
    }
    for place, message in cases.items():
        with pytest.raises(InputError, match=message):
            find_adapter(pathlib.Path(place))
    base = models.load(tiny.model)
    for changed, message in (
        ({"alpha": -1.0}, "alpha is -1.0: expected a positive finite number; .*copy the run again"),
        ({"rank": 3}, "adapter 'layers/attention/query_lora_a' has shape .*were changed"),
        ({"new": 1}, "lora is .*'new': 1.*: expected alpha, dropout, rank"),
    ):
        change(copied, lora={"rank": 2, "alpha": 4.0} | changed)
        with pytest.raises(InputError, match=message):
            find_adapter(copied).beside(base)


def test_a_refusal_is_one_line_before_the_model_is_read(tiny, tuned, tuned_hub, tmp_path, capsys):
    words = tiny.score_arguments(tmp_path / "out", adapter=tmp_path)
    words[words.index("--model") + 1] = str(tmp_path / "no model")
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path} holds no adapter: expected")
    peft = shutil.copytree(tuned_hub / "peft", tmp_path / "peft")
    assert main(tiny.score_arguments(tmp_path / "out", adapter=peft)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: tiny does not come from a Hugging Face directory, so PEFT has no names for its "
        f"modules; {peft} is an adapter of PEFT for 'hub': load that one from its Hugging Face "
        "directory"
    )
    assert not (tmp_path / "out").exists()
