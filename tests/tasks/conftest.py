import pytest

from fishjax.tasks import Question


class Characters:
    """A tokenizer anyone can do by hand: a is 10, b is 11, ...; `merges` join two characters."""

    bos_id = 1
    eos_id = 2
    vocab_size = 64

    def __init__(self, merges=()):
        self.ids = {c: 10 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz \n.")}
        self.merges = {pair: 50 + i for i, pair in enumerate(merges)}

    def encode(self, text: str, *, bos: bool) -> list[int]:
        ids, i = [self.bos_id] if bos else [], 0
        while i < len(text):
            if text[i : i + 2] in self.merges:
                ids.append(self.merges[text[i : i + 2]])
                i += 2
            else:
                ids.append(self.ids[text[i]])
                i += 1
        return ids

    def decode(self, ids) -> str:
        names = {i: c for c, i in (self.ids | self.merges).items()}
        return "".join(names[i] for i in ids if i != self.bos_id)


@pytest.fixture
def characters():
    return Characters


@pytest.fixture
def make_question():
    def make(context, *choices, id="q"):
        labels = (1,) + (0,) * (len(choices) - 1)
        return Question(id, context, choices, labels, tuple(c.strip() for c in choices), {})

    return make
