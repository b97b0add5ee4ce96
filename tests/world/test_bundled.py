"""What ships is what the manifest says, small, and what the scripts make."""

import hashlib
import json

import numpy as np
import pytest

from fishjax import bundled, models
from fishjax.cli.demo_columns import SCORE_NAMES
from fishjax.tasks import load_task
from fishjax.tasks.world import WorldConfig, make_world, training_text
from fishjax.tasks.world_questions import QUESTION_SETS, question_sets
from fishjax.tasks.world_vocabulary import vocabulary


def test_sizes_and_hashes_are_those_of_the_manifest():
    manifest = bundled.read_manifest()
    with bundled.world_directory() as world:
        assert {file.name for file in world.iterdir()} == {*manifest["files"], "manifest.json"}
        for name, recorded in manifest["files"].items():
            data = (world / name).read_bytes()
            assert len(data) == recorded["bytes"]
            assert hashlib.sha256(data).hexdigest() == recorded["sha256"]
        total = sum(file.stat().st_size for file in world.iterdir())
    assert manifest["files"]["world.bin"]["bytes"] <= 4 * 2**20
    assert total <= 5 * 2**20


def test_the_questions_are_those_of_the_generator():
    world = make_world(WorldConfig())
    trainings = bundled.read_manifest()["trainings"].values()
    recorded = json.loads(json.dumps(vars(world.config)))
    assert all(training["config"]["world"] == recorded for training in trainings)
    for name, questions in question_sets(world).items():
        assert bundled.read_questions(name) == questions


def test_the_checkpoint_loads_with_the_vocabulary_of_the_generator():
    tokens, _ = vocabulary(training_text(make_world(WorldConfig())))
    with bundled.world_directory() as world:
        model = models.load(world)
        task = load_task("multiple_choice", world / "conflict_4.jsonl")
    assert model.config.vocab_size == model.tokenizer.vocab_size == len(tokens)
    ids = np.array([model.tokenizer.encode(task.questions[0].context, bos=True)])
    assert np.isfinite(model.apply_fn(model.params, ids)).all()


def test_stored_scores_cover_the_other_seeds_and_every_question():
    manifest = bundled.read_manifest()
    stored = bundled.read_stored_scores()
    assert sorted(stored) == sorted(manifest["stored_seeds"])
    assert len({*stored, manifest["shipped_seed"]}) == 5
    for sets in stored.values():
        assert set(sets) == set(QUESTION_SETS) == set(manifest["question_sets"])
        for name, columns in sets.items():
            questions = bundled.read_questions(name)
            assert set(columns) == {"chosen", *SCORE_NAMES}
            assert all(len(column) == len(questions) for column in columns.values())
            assert set(np.unique(columns["chosen"])) <= set(range(int(name[-1])))


def test_stored_scores_obey_the_identities_of_the_scores():
    for sets in bundled.read_stored_scores().values():
        for name, columns in sets.items():
            difference = columns["epistemic"] - 2 * columns["aleatoric"]
            # Stored with six significant digits, values up to about 100.
            np.testing.assert_allclose(columns["scale_free"], difference, atol=1e-3)
            assert (columns["aleatoric"] <= np.log(0.25) + 1e-5).all()
            assert (columns["maximum_probability"] >= -np.log(int(name[-1])) - 1e-5).all()


def test_high_exposure_is_learned_and_low_exposure_is_not():
    for training in bundled.read_manifest()["trainings"].values():
        accuracy = training["curve"][-1]["recall_4_accuracy"]
        assert accuracy["64"] > 0.95
        assert accuracy["0"] < 0.5


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="expected one of recall_2"):
        bundled.read_questions("trivia")
