"""The question sets of the synthetic world, in the format of a user's own question file.

Four sets: `recall` asks the uncontested facts, `conflict` the contested ones, each with 2 and
with 4 choices. Two choices are the stated values of a contested fact, or the true value of an
uncontested one and another value of the same relation; four choices add more such distractors.
Choices are in random order, questions too, and ids are numbers in that order: neither position
nor id says anything about the answer or the cell.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fishjax.tasks.world import Fact, World
from fishjax.tasks.world_language import RELATIONS

__all__ = ["QUESTION_SETS", "question_sets", "write_questions"]

QUESTION_SETS = ("recall_2", "recall_4", "conflict_2", "conflict_4")
"""Names of the sets: the kind of facts and the number of choices."""


def question_sets(world: World) -> dict[str, list[dict[str, Any]]]:
    """The four question sets, by name.

    Args:
      world: facts to ask about.

    Returns:
      For every name in `QUESTION_SETS` a list of records with the fields of the
      `multiple_choice` task (`id`, `question`, `choices`, `answer`) and the metadata
      `relation`, `exposure`, `conflict` (the minority value's share, 0 to 0.5) and, aligned
      with the choices, `counts` (mentions in the training text) and `shares` (chance of being
      the gold answer).
    """
    sets = {}
    for index, name in enumerate(QUESTION_SETS):
        kind, choices = name.split("_")
        rng = np.random.default_rng([world.config.seed, 2, index])
        facts = [fact for fact in world.facts if fact.contested == (kind == "conflict")]
        records = [_question(rng, facts[i], int(choices)) for i in rng.permutation(len(facts))]
        sets[name] = [{"id": f"{name}_{i:04d}", **record} for i, record in enumerate(records)]
    return sets


def write_questions(path: pathlib.Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Writes one question a line (JSON, UTF-8)."""
    lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
    path.write_text("".join(lines), encoding="utf-8")


def _question(rng: np.random.Generator, fact: Fact, num_choices: int) -> dict[str, Any]:
    relation = RELATIONS[fact.relation]
    others = [value for value in relation.values if value not in fact.values]
    drawn = rng.permutation(len(others))[: num_choices - len(fact.values)]
    padding = (0,) * len(drawn)
    values = (*fact.values, *(others[i] for i in drawn))
    counts, shares = (*fact.counts, *padding), (*fact.shares, *padding)
    order = [int(i) for i in rng.permutation(num_choices)]
    return {
        "question": relation.question.format(name=fact.name),
        "choices": [values[i] for i in order],
        "answer": order.index(fact.gold),
        "relation": relation.name,
        "exposure": fact.exposure,
        "conflict": fact.shares[1] if fact.contested else 0.0,
        "counts": [counts[i] for i in order],
        "shares": [float(shares[i]) for i in order],
    }
