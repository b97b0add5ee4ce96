"""The training script runs from a shell and leaves a checkpoint the product loads."""

import json
import pathlib
import subprocess
import sys

import numpy as np

from fishjax import models

ROOT = pathlib.Path(__file__).parents[2]


def test_smoke_trains_a_loadable_model(tmp_path):
    command = [sys.executable, "-m", "experiments.world.train", "--smoke", "--out", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "16:" in result.stdout  # the learning curve, by exposure
    model = models.load(tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    assert sum(leaf.size for leaf in model.params["layers"]["attention"].values()) > 0
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    ids = np.array([model.tokenizer.encode("Where does Ada live?", bos=True)])
    logits = model.apply_fn(model.params, ids)
    assert logits.shape == (1, ids.shape[1], model.config.vocab_size)
    assert np.isfinite(logits).all()
