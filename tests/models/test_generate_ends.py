"""Generation: ends that `config.json` names, and rows that fill up a mesh."""

import dataclasses

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


def test_a_mesh_changes_nothing_and_needs_its_axis(model, endless):
    auto = jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(auto, auto))
    found = models.generate(model, PROMPTS, Sampling(6), eos_ids=(10**6,), mesh=mesh)
    assert [one.token_ids for one in found] == [one.token_ids for one in endless]
    with pytest.raises(ValueError, match=r"axes \('rows',\): expected one called data"):
        models.generate(model, PROMPTS, mesh=jax.make_mesh((1,), ("rows",)))
