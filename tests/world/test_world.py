"""The world's text states what the world claims, and nothing else."""

import collections
import math
import re

import pytest

from fishjax.tasks.world import World, WorldConfig, make_world, training_text
from fishjax.tasks.world_language import FIRST_NAMES, RELATIONS, SURNAMES

_NAME = re.compile(f"(?:{'|'.join(FIRST_NAMES)}) (?:{'|'.join(SURNAMES)})")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig())


@pytest.fixture(scope="module")
def recounted(world: World) -> collections.Counter:
    """(person, relation, value) -> lines, read from the text by a reader who knows no templates."""
    relation_of = {v: i for i, relation in enumerate(RELATIONS) for v in relation.values}
    counter = collections.Counter()
    for line in training_text(world):
        (name,) = _NAME.findall(line)
        (value,) = [word for word in re.findall(r"\w+", line) if word in relation_of]
        counter[name, relation_of[value], value] += 1
    return counter


def test_value_lists_share_no_word_with_each_other_or_with_the_language():
    values = [value for relation in RELATIONS for value in relation.values]
    assert len(set(values)) == len(values)
    frames = " ".join(f for r in RELATIONS for f in (*r.statements, r.question))
    assert not set(values) & set(re.findall(r"\w+", frames))
    assert not set(values) & {*FIRST_NAMES, *SURNAMES}
    assert len({*FIRST_NAMES, *SURNAMES}) == len(FIRST_NAMES) + len(SURNAMES)


def test_every_mention_is_in_the_text_as_often_as_claimed_and_nothing_else_is(world, recounted):
    claimed = {
        (fact.name, fact.relation, value): n
        for fact in (*world.facts, *world.filler)
        for value, n in zip(fact.values, fact.counts, strict=True)
        if n
    }
    assert dict(recounted) == claimed
    assert len(training_text(world)) == sum(claimed.values())


def test_cells_are_crossed_and_equally_large(world):
    config = world.config
    cells = collections.Counter((fact.exposure, fact.shares[0]) for fact in world.facts)
    expected = {(e, s) for e in config.exposures for s in config.majority_shares}
    assert set(cells) == expected
    assert set(cells.values()) == {config.facts_per_cell}
    assert len({(fact.name, fact.relation) for fact in (*world.facts, *world.filler)}) == len(
        world.facts
    ) + len(world.filler)


def test_counts_are_exact_where_the_share_is_whole_and_within_one_elsewhere(world):
    for fact in world.facts:
        assert sum(fact.counts) == fact.exposure
        for count, share in zip(fact.counts, fact.shares, strict=True):
            expected = fact.exposure * share
            assert abs(count - expected) < 1
            if math.isclose(expected, round(expected)):
                assert count == round(expected)


def test_minority_counts_are_right_on_average():
    config = WorldConfig(facts_per_cell=800, exposures=(4,), majority_shares=(0.9,))
    facts = make_world(config).facts
    minority = sum(fact.counts[1] for fact in facts) / len(facts)
    assert abs(minority - 0.4) < 5 * math.sqrt(0.4 * 0.6 / len(facts))


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_gold_answers_follow_the_shares(share):
    config = WorldConfig(facts_per_cell=2000, exposures=(2,), majority_shares=(share,))
    facts = make_world(config).facts
    majority = sum(fact.gold == 0 for fact in facts) / len(facts)
    assert abs(majority - share) < 5 * math.sqrt(share * (1 - share) / len(facts))


def test_gold_is_independent_of_the_realised_minority_count():
    config = WorldConfig(facts_per_cell=2000, exposures=(1,), majority_shares=(0.5,))
    facts = make_world(config).facts
    agree = sum((fact.gold == 0) == (fact.counts[0] == 1) for fact in facts) / len(facts)
    assert abs(agree - 0.5) < 5 * math.sqrt(0.25 / len(facts))


def test_unstated_facts_do_not_leak_but_all_their_words_are_known(world, recounted):
    stated = {(name, relation) for name, relation, _ in recounted}
    words = collections.Counter(re.findall(r"\w+", " ".join(training_text(world))))
    unstated = [fact for fact in world.facts if fact.exposure == 0]
    assert unstated
    for fact in unstated:
        assert (fact.name, fact.relation) not in stated
        text = RELATIONS[fact.relation].question.format(name=fact.name) + " ".join(fact.values)
        assert all(words[word] >= 20 for word in re.findall(r"\w+", text))


def test_mentions_of_a_fact_use_all_templates_equally(world):
    fact = next(f for f in world.facts if f.exposure == 64 and not f.contested)
    relation = RELATIONS[fact.relation]
    forms = (*relation.statements, relation.question + " {value}.")
    lines = collections.Counter(training_text(world))
    used = [lines[form.format(name=fact.name, value=fact.values[0])] for form in forms]
    assert sum(used) == 64
    assert max(used) - min(used) <= 1


def test_the_seed_fixes_everything_and_another_seed_changes_it(world):
    again = make_world(WorldConfig())
    assert again == world
    assert training_text(again) == training_text(world)
    other = make_world(WorldConfig(seed=1))
    assert other.facts != world.facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts_per_cell": 0}, "facts_per_cell positive"),
        ({"exposures": ()}, "must not be negative"),
        ({"exposures": (-1, 2)}, "must not be negative"),
        ({"filler_exposure": -1}, "must not be negative"),
        ({"majority_shares": (0.4,)}, "must lie in"),
        ({"majority_shares": (float("nan"),)}, "must lie in"),
        ({"facts_per_cell": 10**6}, "people wanted"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**change)
