r"""A synthetic world in plain English whose two uncertainties are known.

A *fact* is a person and a relation ("Where does Ada Kemp live?"). Two properties are crossed:

- **exposure**: how often the training text states the fact, 0 to 64 times (epistemic);
- **conflict**: the shares of the values it states, 100/0, 90/10, 70/30 or 50/50 (aleatoric).

The gold answer of a contested fact is drawn from its shares, once per fact: nobody who reads
the text can do better than answer with the majority value and know its share.

*Counts.* A share of an exposure need not be whole (90/10 of 4 mentions). The minority value
is stated `floor(n s) + Bernoulli(n s - floor(n s))` times, for exposure n and minority share s:
exact wherever n s is whole, right on average elsewhere, and never further than one mention away.
The realised counts travel with every question. A fact of exposure 0 is stated nowhere, but
its person's other facts are, so every token of its question is known.

*Templates.* The mentions of one fact cycle through the relation's sentences and its question
with answer, from a random starting order, so exposure and wording are not confounded.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from fishjax.tasks.world_language import FIRST_NAMES, RELATIONS, SURNAMES, Relation

__all__ = ["Fact", "World", "WorldConfig", "make_world", "training_text"]


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What the world contains.

    Attributes:
      seed: fixes facts, gold answers, counts and the order of the text.
      facts_per_cell: facts of every exposure and share.
      exposures: numbers of mentions in the training text.
      majority_shares: shares of the majority value, in [0.5, 1].
      filler_people: people with one uncontested fact per relation, about whom nothing is asked.
      filler_exposure: mentions of each of their facts.
    """

    seed: int = 0
    facts_per_cell: int = 48
    exposures: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)
    majority_shares: tuple[float, ...] = (1.0, 0.9, 0.7, 0.5)
    filler_people: int = 64
    filler_exposure: int = 8

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
          ValueError: a count is not positive, a share is outside [0.5, 1], or there are more
            people than names.
        """
        least = min((*self.exposures, self.filler_people, self.filler_exposure))
        if self.facts_per_cell < 1 or not self.exposures or least < 0:
            raise ValueError(f"counts must not be negative, facts_per_cell positive: {self}")
        if not all(0.5 <= share <= 1 for share in self.majority_shares):
            raise ValueError(f"majority shares must lie in [0.5, 1], got {self.majority_shares}")
        if self.num_people > len(FIRST_NAMES) * len(SURNAMES):
            raise ValueError(
                f"{self.num_people} people wanted, names for {len(FIRST_NAMES) * len(SURNAMES)}: "
                "lower facts_per_cell or filler_people"
            )

    @property
    def num_facts(self) -> int:
        """Facts that are asked about: every cell's."""
        return self.facts_per_cell * len(self.exposures) * len(self.majority_shares)

    @property
    def num_people(self) -> int:
        """People in the world, filler included."""
        return -(-self.num_facts // len(RELATIONS)) + self.filler_people


class Fact(NamedTuple):
    """One fact of the world.

    Attributes:
      name: the person.
      relation: index into `RELATIONS`.
      values: majority value and, if contested, minority value.
      shares: what each value's share of the mentions, and its chance of being gold, is.
      exposure: mentions in the training text.
      counts: realised mentions of each value; they add up to `exposure`.
      gold: index into `values` of the true answer, drawn from `shares`.
    """

    name: str
    relation: int
    values: tuple[str, ...]
    shares: tuple[float, ...]
    exposure: int
    counts: tuple[int, ...]
    gold: int

    @property
    def contested(self) -> bool:
        """Whether two values are stated."""
        return len(self.values) > 1


class World(NamedTuple):
    """All facts: those asked about, and the filler that only teaches the language."""

    config: WorldConfig
    facts: tuple[Fact, ...]
    filler: tuple[Fact, ...]


def make_world(config: WorldConfig) -> World:
    """Draws the world; the same configuration always gives the same world."""
    rng = np.random.default_rng([config.seed, 0])
    names = _names(rng, config.num_people)
    asked = names[: config.num_people - config.filler_people]
    slots = [(name, relation) for name in asked for relation in range(len(RELATIONS))]
    cells = [
        (exposure, share)
        for exposure in config.exposures
        for share in config.majority_shares
        for _ in range(config.facts_per_cell)
    ]
    order = rng.permutation(len(slots))[: len(cells)]
    facts = [
        _draw_fact(rng, slots[slot], exposure, share)
        for slot, (exposure, share) in zip(order, cells, strict=True)
    ]
    filler = [
        _draw_fact(rng, (name, relation), config.filler_exposure, 1.0)
        for name in names[len(asked) :]
        for relation in range(len(RELATIONS))
    ]
    return World(config, tuple(facts), tuple(filler))


def training_text(world: World) -> list[str]:
    """The training text: one mention a line, shuffled."""
    rng = np.random.default_rng([world.config.seed, 1])
    lines = [line for fact in (*world.facts, *world.filler) for line in _mentions(rng, fact)]
    return [lines[index] for index in rng.permutation(len(lines))]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    pairs = rng.permutation(len(FIRST_NAMES) * len(SURNAMES))[:count]
    return [f"{FIRST_NAMES[p % len(FIRST_NAMES)]} {SURNAMES[p // len(FIRST_NAMES)]}" for p in pairs]


def _draw_fact(
    rng: np.random.Generator, slot: tuple[str, int], exposure: int, share: float
) -> Fact:
    name, relation = slot
    pool = RELATIONS[relation].values
    drawn = rng.permutation(len(pool))[:2]
    if share == 1.0:
        return Fact(name, relation, (pool[drawn[0]],), (1.0,), exposure, (exposure,), 0)
    # Rounding guards against 0.1 * 10 = 0.999...: a whole expectation must stay exact.
    expected = round(exposure * (1 - share), 9)
    minority = int(expected) + int(rng.random() < expected - int(expected))
    gold = int(rng.random() >= share)
    shares = (share, round(1 - share, 9))
    values = (pool[drawn[0]], pool[drawn[1]])
    return Fact(name, relation, values, shares, exposure, (exposure - minority, minority), gold)


def _mentions(rng: np.random.Generator, fact: Fact) -> list[str]:
    relation: Relation = RELATIONS[fact.relation]
    forms = (*relation.statements, relation.question + " {value}.")
    cycle = rng.permutation(len(forms))
    stated = [value for value, n in zip(fact.values, fact.counts, strict=True) for _ in range(n)]
    order = rng.permutation(len(stated))
    return [
        forms[cycle[i % len(forms)]].format(name=fact.name, value=stated[index])
        for i, index in enumerate(order)
    ]
