"""The question files say what the world says, and the product's own loader reads them."""

import collections

import pytest

from fishjax import models
from fishjax.tasks import load_task
from fishjax.tasks.world import WorldConfig, make_world, training_text
from fishjax.tasks.world_language import RELATIONS
from fishjax.tasks.world_questions import QUESTION_SETS, question_sets, write_questions
from fishjax.tasks.world_vocabulary import vocabulary

WORLD = make_world(WorldConfig())
SETS = question_sets(WORLD)
FACTS = {(RELATIONS[fact.relation].question.format(name=fact.name)): fact for fact in WORLD.facts}


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_every_fact_is_asked_once_with_its_own_counts_and_gold(name):
    kind, choices = name.split("_")
    facts = [fact for fact in WORLD.facts if fact.contested == (kind == "conflict")]
    assert len(SETS[name]) == len(facts)
    assert len({q["question"] for q in SETS[name]}) == len(facts)
    for question in SETS[name]:
        fact = FACTS[question["question"]]
        assert len(set(question["choices"])) == len(question["choices"]) == int(choices)
        assert set(question["choices"]) <= set(RELATIONS[fact.relation].values)
        assert question["choices"][question["answer"]] == fact.values[fact.gold]
        stated = dict(zip(fact.values, zip(fact.counts, fact.shares, strict=True), strict=True))
        for choice, count, share in zip(
            question["choices"], question["counts"], question["shares"], strict=True
        ):
            assert (count, share) == stated.get(choice, (0, 0.0))
        assert sum(question["counts"]) == question["exposure"] == fact.exposure
        assert question["conflict"] == (min(fact.shares) if fact.contested else 0.0)


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_the_position_of_the_gold_answer_is_uniform(name):
    choices = int(name[-1])
    n = len(SETS[name])
    positions = collections.Counter(q["answer"] for q in SETS[name])
    sigma = (n * (1 / choices) * (1 - 1 / choices)) ** 0.5
    assert all(abs(positions[k] - n / choices) < 5 * sigma for k in range(choices))


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_the_order_of_questions_is_unrelated_to_exposure(name):
    # Mean index of a cell's questions; standard error of a mean of m out of n ranks.
    n = len(SETS[name])
    by_exposure = collections.defaultdict(list)
    for index, question in enumerate(SETS[name]):
        by_exposure[question["exposure"]].append(index)
    for indices in by_exposure.values():
        sigma = ((n**2 - 1) / 12 / len(indices)) ** 0.5
        assert abs(sum(indices) / len(indices) - (n - 1) / 2) < 5 * sigma


@pytest.mark.parametrize("name", QUESTION_SETS)
def test_the_task_loader_reads_the_file(name, tmp_path):
    path = tmp_path / f"{name}.jsonl"
    write_questions(path, SETS[name])
    task = load_task("multiple_choice", path)
    assert len(task.questions) == len(SETS[name])
    for read, written in zip(task.questions, SETS[name], strict=True):
        assert read.id == written["id"]
        assert read.context == written["question"]
        assert read.choices == tuple(f" {choice}" for choice in written["choices"])
        assert read.gold == written["answer"]
        assert read.metadata["exposure"] == written["exposure"]


def test_every_word_is_one_token_and_every_answer_too():
    lines = training_text(WORLD)
    tokenizer = models.Llama2cTokenizer(*vocabulary(lines))
    for line in {*lines, *(f"{q['question']} {c}" for q in SETS["recall_4"] for c in q["choices"])}:
        words = line.replace("?", " ?").replace(".", " .").split()
        ids = tokenizer.encode(line, bos=False)
        assert len(ids) == len(words)
        assert tokenizer.decode([tokenizer.bos_id, *ids]) == line


def test_unknown_words_and_other_scripts_still_have_tokens():
    tokenizer = models.Llama2cTokenizer(*vocabulary(["Ada lives in Rome."]))
    for text in ("Adamant", "naïve 東京", "a\nb"):
        ids = tokenizer.encode(text, bos=True)
        assert 0 not in ids
        assert tokenizer.decode(ids) == text
