"""Generation: ends that `config.json` and `generation_config.json` name, and rows on a mesh."""

import dataclasses
import json

import jax
import pytest

from fishjax import models
from fishjax.models import Sampling

from . import hub


class Numbers:
    """One token a number."""

    bos_id, eos_id, vocab_size = 1, 38, 40

    def encode(self, text, *, bos):
        return [self.bos_id] * bos + [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


PROMPTS = [[3, 4, 5], [6, 7], [8, 9, 10, 11]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    loaded = models.load(hub.write(tmp_path_factory.mktemp("model"), "llama"))
    return dataclasses.replace(loaded, tokenizer=Numbers(), source={"eos_token_id": None})


@pytest.fixture(scope="module")
def endless(model):
    return models.generate(model, PROMPTS, Sampling(6), eos_ids=(10**6,))


@pytest.mark.parametrize("stated", ["one", "several"])
def test_a_sequence_ends_at_every_end_of_the_config(model, endless, stated):
    """A chat model's turn may end with another token than its tokenizer's sequences."""
    end = endless[0].token_ids[2]
    ends = end if stated == "one" else [39, end]
    named = dataclasses.replace(model, source={"eos_token_id": ends})
    found = models.generate(named, PROMPTS, Sampling(6))[0]
    first = endless[0].token_ids.index(end)
    assert (found.ended, found.token_ids) == ("eos", endless[0].token_ids[: first + 1])
    kept = endless[0].token_ids[:first]
    assert found.text == Numbers().decode(kept)
    assert models.generate(named, PROMPTS, Sampling(6), eos_ids=(10**6,)) == endless


@pytest.fixture
def reread(model, tmp_path):
    """The model with this `generation_config.json` beside it."""

    def read(text):
        hub.write(tmp_path, "llama", config={"eos_token_id": 38})
        (tmp_path / "generation_config.json").write_text(text)
        return dataclasses.replace(models.load(tmp_path), tokenizer=Numbers())

    return read


@pytest.mark.parametrize("stated", ["one", "several"])
def test_the_ends_of_generation_config_are_all(reread, endless, stated):
    """In the place of those of config.json and the tokenizer; how others sampled is not applied."""
    end = endless[0].token_ids[2]
    values = {"eos_token_id": end if stated == "one" else [39, end, 39], "max_new_tokens": 1}
    sampled = {"do_sample": True, "temperature": 9.0, "top_p": 0.1, "top_k": 1, "a trick": None}
    named = reread(json.dumps(values | sampled))
    assert models.end_ids(named) == {end} | ({39} if stated == "several" else set())
    for row, whole in zip(models.generate(named, PROMPTS, Sampling(6)), endless, strict=True):
        ids = whole.token_ids
        expected = ids[: ids.index(end) + 1] if end in ids else ids
        assert (row.token_ids, row.ended == "eos") == (expected, end in ids)
    assert models.generate(named, PROMPTS, Sampling(6), eos_ids=(10**6,)) == endless


@pytest.mark.parametrize("text", ["{}", '{"eos_token_id": null, "bos_token_id": 1}'])
def test_without_ends_in_generation_config_those_of_the_others_count(reread, text):
    assert models.end_ids(reread(text)) == {38}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed JSON"),
        ("[1]", "is a list: expected a JSON object"),
        ('{"eos_token_id": "</s>"}', "eos_token_id is '</s>': expected an id or a list of ids"),
        ('{"eos_token_id": [1, true]}', r"eos_token_id is \[1, True\]: expected"),
        ('{"eos_token_id": []}', r"eos_token_id is \[\]: expected"),
        ('{"eos_token_id": 40}', "eos_token_id is 40: expected .* below the 40 of the model; corr"),
        ('{"eos_token_id": -1}', "eos_token_id is -1: expected"),
        ('{"eos_token_id": 1.0}', "eos_token_id is 1.0: expected"),
    ],
)
def test_a_malformed_generation_config_is_said_by_name(reread, tmp_path, text, message):
    with pytest.raises(models.CheckpointError, match=message) as raised:
        reread(text)
    assert str(raised.value).count(str(tmp_path / "generation_config.json")) == 1


def test_a_mesh_changes_nothing_and_needs_its_axis(model, endless):
    auto = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(auto, auto))
    found = models.generate(model, PROMPTS, Sampling(6), eos_ids=(10**6,), mesh=mesh)
    assert [one.token_ids for one in found] == [one.token_ids for one in endless]
    with pytest.raises(ValueError, match=r"axes \('rows',\): expected one called data"):
        models.generate(model, PROMPTS, mesh=jax.make_mesh((1,), ("rows",)))
