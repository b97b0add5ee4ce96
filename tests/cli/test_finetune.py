"""`fishjax finetune`: loss falls, kills change nothing, adapters and checkpoints read back."""

import json

import jax
import numpy as np
import pytest

from fishjax import models
from fishjax.cli import main
from fishjax.io.checkpoints import load_tree
from fishjax.models.finetune import Tuning, batch_rows
from tests.failing_disk import FailingDisk

from .stages import write_corpus, write_hub_model

TOKENS = np.array([[1, 5, 7, 2]])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt", 20)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A tiny Llama as a Hugging Face directory, with a tokenizer of words."""
    return write_hub_model(tmp_path_factory.mktemp("hub") / "tiny-llama")


def arguments(model, corpus, out, *more, **changes):
    options = {
        "model": model, "data": corpus, "out": out, "length": 8, "batch": 4, "steps": 30,
        "learning-rate": 0.03, "warmup": 3, "checkpoint-every": 4,
    } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
    pairs = [str(x) for name, value in options.items() for x in (f"--{name}", value)]
    return ["finetune", *pairs, *more]


ADAPTERS = ("--lora-rank", "3", "--lora-targets", "attention/*", "mlp/*", "--lora-dropout", "0.1")


@pytest.fixture(scope="module")
def finished(tiny, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetune") / "out"
    assert main(arguments(tiny.model, corpus, out, *ADAPTERS, "--quiet")) == 0
    return out


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def losses_of(out):
    rows = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(rows)))
    return np.array([row["loss"] for row in rows])


def test_the_loss_falls_and_adapters_are_left(finished):
    losses = losses_of(finished)
    assert len(losses) == 30
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()
    assert {p.name for p in finished.iterdir() if not p.name.startswith(".")} == {
        "config.toml", "run.json", "losses.jsonl", "states", "adapters",
    }  # fmt: skip
    assert [p.name for p in (finished / "states").glob("[0-9]*")] == ["000000030"]
    rates = [
        json.loads(line)["learning_rate"]
        for line in (finished / "losses.jsonl").read_text().splitlines()
    ]
    np.testing.assert_allclose(rates[:5], 0.03 * np.array([0.25, 0.5, 0.75, 1, 0.9966]), rtol=1e-4)
    assert 0 < rates[-1] < 1e-3


def test_a_stopped_run_goes_on_to_the_same_bytes(finished, tiny, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    command = arguments(tiny.model, corpus, out, *ADAPTERS)
    states = out / "states"
    with FailingDisk(out, lambda call, number: (states / "000000008").exists()):
        assert main(command) == 1
    with (out / "losses.jsonl").open("a") as file:  # steps after the last stored state, torn
        file.write('{"step": 99}\n{"ste')
    (states / ".000000099.tmp").mkdir()
    assert (states / "000000004").exists()  # it stopped before the older state was removed
    capsys.readouterr()
    assert main(command) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "resuming after" in printed
    assert f"go on with: fishjax score --model {tiny.model} --adapter {out}" in printed
    assert (out / "losses.jsonl").read_bytes() == (finished / "losses.jsonl").read_bytes()
    assert [path.name for path in states.iterdir()] == ["000000030"]
    assert_same(load_tree(out / "adapters"), load_tree(finished / "adapters"))
    # a finished run again, now with a checkpoint
    assert main([*command, "--merge"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "go on with: fishjax score --model" in printed
    lora = models.LoraConfig(3, 6.0, ("attention/*", "mlp/*"), 0.1)
    base = models.load(tiny.model)
    tuned = models.adapted(base, lora, load_tree(out / "adapters"))
    merged = models.load(out / "model")
    np.testing.assert_allclose(
        jax.jit(merged.apply_fn)(merged.params, TOKENS),
        jax.jit(tuned.apply_fn)(tuned.params, TOKENS),
        atol=1e-3,
    )
    assert repr(lora) in printed
    assert merged.tokenizer.encode("cat", bos=False) == base.tokenizer.encode("cat", bos=False)


def test_all_parameters(tiny, corpus, tmp_path):
    out = tmp_path / "out"
    command = arguments(tiny.model, corpus, out, "--full", "--quiet", steps=20, weight_decay=0.1)
    assert main(command) == 0
    assert losses_of(out)[-5:].mean() < 0.8 * losses_of(out)[:5].mean()
    before, after = models.load(tiny.model), models.load(out / "model")
    assert after.config == before.config
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params, after.params)
    assert all(jax.tree.leaves(moved))
    stored = load_tree(out / "states" / "000000020")["trained"]
    assert_same(after.params, stored)


def test_hub_models_get_a_peft_directory(hub, corpus, tmp_path):
    out = tmp_path / "out"
    command = arguments(hub, corpus, out, "--quiet", "--merge", steps=6)
    assert main(command) == 0
    model = models.load(hub)
    lora, adapters = models.load_adapter(out / "peft", model)
    assert lora == models.LoraConfig(8, 16.0)
    assert_same(adapters, load_tree(out / "adapters"))
    merged = models.load(out / "model")
    expected = models.merged(models.adapted(model, lora, adapters))
    jax.tree.map(np.testing.assert_array_equal, merged.params, expected.params)
    assert merged.tokenizer.encode("cat eat", bos=False) == [3, 7]
    assert main(command) == 0


def error_of(command, capsys, status=2):
    assert main(command) == status
    return " ".join(capsys.readouterr().err.split())


def test_a_loss_that_is_not_finite_stops_and_loses_nothing(tiny, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    command = arguments(
        tiny.model, corpus, out, "--quiet", "--full", learning_rate=1e36, warmup=0, clip=1e36
    )
    for _ in range(2):
        message = error_of(command, capsys, status=1)
        assert "nothing is lost" in message
        assert "lower --learning-rate" in message
        steps = len(losses_of(out))
        assert 0 < steps < 30
        assert np.isfinite(losses_of(out)).all()
        (state,) = (out / "states").glob("[0-9]*")
        assert int(state.name) == steps
        trained = load_tree(state)["trained"]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
    assert not (out / "model").exists()


def test_other_settings_are_refused(finished, tiny, corpus, capsys):
    before = (finished / "losses.jsonl").read_bytes()
    for change, message in (
        (dict(steps=31), "num_steps is 30 there and 31 here"),
        (dict(seed=1), "seed is 0 there and 1 here"),
        (dict(lora_alpha=2.0), "lora is"),
    ):
        command = arguments(tiny.model, corpus, finished, *ADAPTERS, **change)
        assert message in error_of(command, capsys)
    assert (finished / "losses.jsonl").read_bytes() == before


def test_a_changed_file_of_losses_is_refused(finished, tiny, corpus, capsys, tmp_path):
    lines = (finished / "losses.jsonl").read_bytes()
    (finished / "losses.jsonl").write_bytes(lines[: len(lines) // 2])
    try:
        command = arguments(tiny.model, corpus, finished, *ADAPTERS, "--quiet")
        assert "the file was changed" in error_of(command, capsys)
    finally:
        (finished / "losses.jsonl").write_bytes(lines)


@pytest.mark.parametrize(
    ("more", "changes", "message"),
    [
        (("--full", "--lora-rank", "3"), {}, "--lora-rank beside --full"),
        (("--full", "--merge"), {}, "--merge beside --full"),
        ((), {"lora_targets": "norm"}, "no parameter matches 'norm'"),
        ((), {"lora_dropout": 1.5}, "dropout is 1.5"),
        ((), {"learning_rate": 0.0}, "learning_rate is 0.0"),
        ((), {"warmup": 30}, "warmup of 30 steps"),
        ((), {"weight_decay": -1}, "weight_decay is -1.0"),
        ((), {"data": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_bad_input_is_one_line(more, changes, message, tiny, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in error_of(arguments(tiny.model, corpus, out, *more, **changes), capsys)
    assert not out.exists()


def test_batches_depend_on_the_seed_and_the_step_alone():
    steps = [batch_rows(10, 4, seed=3, step=step) for step in range(5)]
    whole = np.concatenate(steps)
    assert sorted(whole[:10]) == sorted(whole[10:]) == list(range(10))
    assert list(whole[:10]) != list(whole[10:])
    np.testing.assert_array_equal(batch_rows(10, 4, seed=3, step=2), steps[2])
    assert sorted(batch_rows(3, 7, seed=0, step=0)[:3]) == [0, 1, 2]
    assert not np.array_equal(batch_rows(10, 4, seed=4, step=0), steps[0])


def test_the_schedule_rises_and_falls():
    rates = [float(Tuning(10, 1.0, warmup=4).schedule()(step)) for step in range(11)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rates[5:], (1 + np.cos(np.pi * np.arange(1, 7) / 6)) / 2, atol=1e-6)
