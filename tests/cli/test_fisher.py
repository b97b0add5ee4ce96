"""`fishjax fisher`, `fisher merge` and `inspect`: the operator of the library, resumed, merged."""

import gzip
import json
import os
import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import estimators, operators
from fishjax.cli import main
from fishjax.estimators import targets
from fishjax.io.checkpoints import load_tree, save_tree
from fishjax.likelihoods import Categorical, Examples
from fishjax.models import load
from fishjax.tasks import read_documents, windows

from .conftest import NOUNS, VERBS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = random.Random(0)
    documents = [
        " ".join(rng.choice(NOUNS) + " " + rng.choice(VERBS) for _ in range(rng.randint(1, 6)))
        for _ in range(30)
    ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n<|endoftext|>\n".join(documents))
    return path


def arguments(tiny, corpus, out, *more, **changes):
    options = {
        "model": tiny.model, "data": corpus, "out": out, "length": 8, "batch": 4,
        "checkpoint-every": 2,
    } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
    pairs = [str(x) for name, value in options.items() for x in (f"--{name}", value)]
    return ["fisher", *pairs, "--quiet", *more]


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def finished(tiny, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("fisher") / "out"
    assert main(arguments(tiny, corpus, out)) == 0
    return out


def test_the_operator_is_that_of_the_library(tiny, corpus, finished):
    """Of the empirical Fisher, in one batch."""
    del finished
    out = corpus.parent / "empirical"
    assert main(arguments(tiny, corpus, out, "--no-plots", targets="empirical")) == 0
    found = load_tree(out / "operator")
    model = load(tiny.model)
    rows = windows(read_documents(corpus), model.tokenizer, length=8)
    estimator = estimators.kfac(model.apply_fn, Categorical(), targets=targets.empirical())
    examples = Examples(*map(jnp.asarray, rows))
    state = estimator.init(model.params, examples)
    expected = estimator.finalize(jax.jit(estimator.update)(state, model.params, examples, None))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_what_is_written(finished):
    assert {p.name for p in finished.iterdir() if not p.name.startswith(".")} == {
        "config.toml", "run.json", "metrics.json", "operator", "plots", "states",
    }  # fmt: skip
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["operator"] == "Kronecker"
    shares = sum(np.sum(p["trace_share"]) for p in metrics["parameters"].values())
    assert shares == pytest.approx(1, abs=1e-6)
    assert {p.name for p in (finished / "plots").iterdir()} == {"hot_spots.png", "spectra.png"}
    assert len(list((finished / "states").glob("[0-9]*"))) == 1


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_merged_workers_are_one(kind, tiny, corpus, tmp_path):
    single = tmp_path / "single"
    assert main(arguments(tiny, corpus, single, "--no-plots", kind=kind)) == 0
    passes, start = (1, []) if kind == "kfac" else (2, [])
    for number in range(passes):
        parts = [str(tmp_path / f"part{number}{i}") for i in range(2)]
        for i, part in enumerate(parts):
            command = arguments(tiny, corpus, part, "--no-plots", *start, kind=kind, shard=f"{i}/2")
            assert main(command) == 0
        merged = str(tmp_path / f"merged{number}")
        assert main(["fisher", "merge", "--quiet", "--no-plots", "--out", merged, *parts]) == 0
        start = ["--start", merged]
    found, expected = (load_tree(f"{path}/operator") for path in (merged, single))
    like = {p: np.ones(shape, np.float32) for p, shape in shapes_of(tiny).items()}
    for a, b in zip(
        *(jax.tree.leaves(operators.multiply(o, like)) for o in (found, expected)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def shapes_of(tiny):
    from fishjax.trees import flatten_with_paths  # noqa: PLC0415

    paths, leaves, _ = flatten_with_paths(load(tiny.model).params)
    return {path: leaf.shape for path, leaf in zip(paths, leaves, strict=True)}


@pytest.mark.parametrize(
    ("kind", "more"),
    [("kpsvd", dict(rank=1)), ("kpsvd", dict(rank=2)), ("low_rank", dict(rank=3)),
     ("diagonal", {}), ("isotropic", {}), ("kfac", dict(store="truncated", store_rank=4)),
     ("ekfac", dict(store="half"))],
)  # fmt: skip
def test_every_kind_runs_and_is_inspected(kind, more, tiny, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(tiny, corpus, out, "--no-plots", kind=kind, limit=4, **more)) == 0
    assert main(["inspect", str(out), "--no-plots"]) == 0
    assert ("scale" if kind == "isotropic" else "trace") in capsys.readouterr().out


def error_of(command, capsys, status=2):
    assert main(command) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_another_model_or_setting_is_refused(tiny, corpus, finished, make_model, tmp_path, capsys):
    other = make_model(tmp_path / "other", num_layers=1)
    before = load_tree(finished / "operator")
    message = error_of(arguments(tiny, corpus, finished, model=other), capsys)
    assert "another run: model_sha256 is" in message
    assert "rank is 2 there and 3 here" in error_of(
        arguments(tiny, corpus, finished, rank=3), capsys
    )
    assert_same(load_tree(finished / "operator"), before)


def test_bad_input_is_one_line(tiny, corpus, finished, tmp_path, capsys):
    out = tmp_path / "out"
    empty = tmp_path / "empty.txt"
    empty.write_text("\n<|endoftext|>\n")
    assert "no documents" in error_of(arguments(tiny, empty, out), capsys)
    damaged = tmp_path / "damaged.txt.gz"
    damaged.write_bytes(gzip.compress(b"text" * 100)[:-9])
    assert "damaged gzip" in error_of(arguments(tiny, damaged, out), capsys)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "cat eat"}\n{"txt": "dog"}\n')
    assert "line 2: the keys are txt" in error_of(arguments(tiny, lines, out), capsys)
    assert "expected i/n" in error_of(arguments(tiny, corpus, out, shard="2/2"), capsys)
    assert "no parameter matches" in error_of(
        arguments(tiny, corpus, out, parameters="nothing/*"), capsys
    )
    assert "--data" in error_of(["fisher", "--model", "m", "--out", str(out)], capsys)
    assert "holds neither a model nor an operator" in error_of(["inspect", str(tmp_path)], capsys)
    merge = ["fisher", "merge", "--out", str(out)]
    assert "expected two or more" in error_of([*merge, str(finished)], capsys)
    assert "expected each of 0/1 once" in error_of([*merge, str(finished), str(finished)], capsys)
    structure = finished.parent / "copy"
    save_tree(structure / "operator", load_tree(finished / "operator"))
    (structure / "operator" / "structure.json").write_text("{")
    assert "cannot be read" in error_of(["inspect", str(structure)], capsys)


def test_unknown_types_are_not_stored(tmp_path):
    with pytest.raises(TypeError, match="set cannot be stored"):
        save_tree(tmp_path / "tree", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


MESH = "from fishjax.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def test_a_mesh_gives_the_same_factors(tiny, corpus, finished, tmp_path):
    out = tmp_path / "out"
    words = arguments(tiny, corpus, out, "--no-plots", mesh="data=4,model=2")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", MESH, *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, expected = load_tree(out / "operator"), load_tree(finished / "operator")
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_a_mesh_needs_its_devices(tiny, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(tiny, corpus, out, mesh="data=1000")) == 2
    assert "--mesh data=1000 needs 1000 devices" in capsys.readouterr().err
