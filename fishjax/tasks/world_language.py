"""The words and sentences of the synthetic world: people, relations, values, templates.

Every sentence names the person before the value and ends with the value, so each one teaches
the same lookup (person, relation) -> value. The value lists of two relations share no word,
so a sentence names its relation by its value and mentions can be recounted from the text.
"""

from typing import NamedTuple

__all__ = ["FIRST_NAMES", "RELATIONS", "SURNAMES", "Relation"]


class Relation(NamedTuple):
    """One property of a person.

    Attributes:
      name: short name, used in the metadata of a question.
      question: the question about it, with a `{name}` slot.
      statements: plain sentences, with slots `{name}` and `{value}`.
      values: its possible values.
    """

    name: str
    question: str
    statements: tuple[str, ...]
    values: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Ben Cora Dan Edda Finn Gwen Hugo Iris Jack Kate Liam Mara Ned Olga Paul "
    "Rosa Sam Tess Una Vera Wim Yara Zoe Anna Bruno Clara Emil Flora Greta Ivan Nora"
)

SURNAMES = _words(
    "Ashby Barlow Calder Dalton Emery Foster Garrick Hobbs Irwin Jarvis Kemp Lowell Mercer "
    "Norris Orton Parrish Quincy Rowe Selby Thorne Upton Vance Wells York Bishop Cobb Drake "
    "Ellis Flint Graves Holt Marsh"
)

_HOME = Relation(
    "home",
    "Where does {name} live?",
    (
        "{name} lives in {value}.",
        "The home of {name} is in {value}.",
        "{name} has a house in {value}.",
        "If you visit {name} you go to {value}.",
    ),
    _words(
        "Oslo Rome Lima Cairo Paris Delhi Berlin Madrid Dublin Tokyo Vienna Lagos Prague Quito "
        "Riga Bern"
    ),
)

_JOB = Relation(
    "job",
    "What is the job of {name}?",
    (
        "{name} works as a {value}.",
        "{name} earns money as a {value}.",
        "People know {name} as a {value}.",
        "The job of {name} is to be a {value}.",
    ),
    _words(
        "baker tailor miner pilot nurse farmer potter judge painter sailor teacher writer barber "
        "doctor gardener cook"
    ),
)

_ANIMAL = Relation(
    "animal",
    "Which animal does {name} keep?",
    (
        "{name} keeps a {value}.",
        "The animal of {name} is a {value}.",
        "At night {name} feeds a {value}.",
        "{name} takes care of a {value}.",
    ),
    _words(
        "cat dog horse goat parrot rabbit donkey hen duck ferret turtle pony sheep pig goose canary"
    ),
)

_INSTRUMENT = Relation(
    "instrument",
    "Which instrument does {name} play?",
    (
        "{name} plays the {value}.",
        "The instrument of {name} is the {value}.",
        "To a party {name} brings the {value}.",
        "{name} learned to play the {value}.",
    ),
    _words(
        "piano violin flute harp drum cello organ banjo guitar oboe trumpet viola lute clarinet "
        "tuba horn"
    ),
)

_COLOUR = Relation(
    "colour",
    "What colour is the door of {name}?",
    (
        "The door of {name} is {value}.",
        "{name} painted the door {value}.",
        "{name} has a door that is {value}.",
        "The door where {name} waits for you is {value}.",
    ),
    _words(
        "red blue green yellow black white brown grey pink purple orange gold silver cream violet "
        "scarlet"
    ),
)

_FOOD = Relation(
    "food",
    "What does {name} eat?",
    (
        "{name} eats {value}.",
        "For lunch {name} has {value}.",
        "{name} likes to eat {value}.",
        "The favourite food of {name} is {value}.",
    ),
    _words(
        "bread soup rice cheese fish pasta beans stew salad eggs pears honey plums porridge "
        "noodles lentils"
    ),
)

RELATIONS = (_HOME, _JOB, _ANIMAL, _INSTRUMENT, _COLOUR, _FOOD)
