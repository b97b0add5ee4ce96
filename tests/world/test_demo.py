"""`fishjax demo` from end to end, on a world small enough for a test."""

import argparse
import gzip
import json
import sys

import jax
import numpy as np
import pytest

from fishjax import bundled, models
from fishjax.cli import demo
from fishjax.cli.demo_columns import SCORE_NAMES, rounded_columns
from fishjax.tasks.world import WorldConfig, make_world, training_text
from fishjax.tasks.world_questions import QUESTION_SETS, question_sets, write_questions
from fishjax.tasks.world_vocabulary import vocabulary


@pytest.fixture
def tiny_bundle(tmp_path, monkeypatch):
    """An untrained model, and random scores for four more seeds."""
    root = tmp_path / "bundle"
    root.mkdir()
    world = make_world(WorldConfig(facts_per_cell=3, exposures=(0, 4), filler_people=1))
    tokens, scores = vocabulary(training_text(world))
    config = models.DecoderConfig(
        vocab_size=len(tokens), width=8, hidden_width=16, num_layers=1, num_heads=2,
        num_kv_heads=2, context_length=32,
    )  # fmt: skip
    params = models.init_params(config, jax.random.key(0))
    models.save_llama2c(root / "world.bin", params, config)
    models.save_llama2c_tokenizer(root / "tokenizer.bin", tokens, scores)
    rng = np.random.default_rng(0)
    sets = question_sets(world)
    for name, questions in sets.items():
        write_questions(root / f"{name}.jsonl", questions)
    stored = {
        str(seed): {
            name: rounded_columns(
                {
                    "chosen": rng.integers(0, int(name[-1]), len(questions)),
                    **{score: rng.normal(size=len(questions)) for score in SCORE_NAMES},
                }
            )
            for name, questions in sets.items()
        }
        for seed in (1, 2, 3, 4)
    }
    (root / "stored_scores.json.gz").write_bytes(gzip.compress(json.dumps(stored).encode()))
    manifest = {"question_sets": list(QUESTION_SETS), "shipped_seed": 0}
    (root / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(bundled, "_WORLD", root)
    return root


@pytest.mark.slow
def test_demo_scores_reports_and_resumes(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "demo"
    arguments = argparse.Namespace(out=str(out), no_plots=True, quiet=False)
    assert demo.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "seed 0 scored live, 1, 2, 3, 4 from stored rows" in printed
    assert "n = 5" in printed
    assert "best possible" in printed
    for name in QUESTION_SETS:
        assert (out / name / "rows.jsonl").exists()
        assert (out / name / "metrics.json").exists()
    report = json.loads((out / "report.json").read_text())
    assert report["seeds"] == [0, 1, 2, 3, 4]
    for sentence in report["conclusions"]:
        assert sentence in printed
    estimate = report["report"]["4"]["measures"]["epistemic_exposure"]
    assert len(estimate["values"]) == 5
    assert estimate["mean"] == pytest.approx(np.mean(estimate["values"]))
    first = (out / "report.json").read_bytes()
    assert demo.run(arguments) == 0
    assert (out / "report.json").read_bytes() == first


def test_a_failing_set_ends_the_demo_with_its_status(tiny_bundle, tmp_path, capsys):
    (tiny_bundle / "recall_2.jsonl").write_text("not json\n")
    arguments = argparse.Namespace(out=str(tmp_path / "demo"), no_plots=True, quiet=True)
    assert demo.run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "recall_2.jsonl" in error


def test_without_matplotlib_the_demo_says_so_once(tiny_bundle, tmp_path, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [n for n in sys.modules if n.startswith("fishjax.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    commands = []
    monkeypatch.setattr(demo, "main", lambda words: commands.append(words) or len(commands) // 4)
    arguments = argparse.Namespace(out=str(tmp_path / "demo"), no_plots=False, quiet=True)
    assert demo.run(arguments) == 1
    assert len(commands) == 4
    assert all("--no-plots" in words for words in commands)
    assert capsys.readouterr().err == (
        "no plots: matplotlib is not installed (pip install 'fishjax[plots]')\n"
    )
