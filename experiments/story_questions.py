"""Questions about TinyStories that a model of children's stories can answer.

The published question files are far beyond the two story models: at chance an AUROC says nothing.
These are made from the held-out stories, in the formats users bring:

- *next sentence* (`multiple_choice`): four sentences of a story, then its fifth or the fifth of
  one of the next three stories in the file; chance is 1/4.
- *last word* (`open_qa`): a story up to the last word of its first sentence, from the third on,
  that ends with a word of at least three letters said before; in the manner of LAMBADA (Paperno et
  al. 2016, arXiv 1606.06031).

Command: `python -m experiments.story_questions --data ../shared/data --out runs/stories`, a second.
"""

import argparse
import json
import pathlib
import random
import re
from collections.abc import Iterable
from typing import Any

from fishjax import io
from fishjax.tasks import read_documents

__all__ = ["last_words", "next_sentences", "write_questions"]

LAST_WORD, NEXT_SENTENCE = "last_word.jsonl", "next_sentence.jsonl"
_SENTENCE_END = re.compile(r'(?<=[.!?]) (?=["A-Z])')
_ENDING = re.compile(r"^(.*) ([A-Za-z]{3,})[.!?]$", re.DOTALL)


def next_sentences(
    stories: Iterable[str], *, given: int = 4, others: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Multiple-choice questions; the true sentence's place is drawn."""
    rng, found = random.Random(seed), []
    told = [s for s in map(_sentences, stories) if len(s) > given]
    for number, story in enumerate(told):
        true = story[given]
        wrong = [told[(number + step) % len(told)][given] for step in range(1, others + 1)]
        if len({true, *wrong}) == others + 1:
            place = rng.randrange(others + 1)
            choices = [*wrong[:place], true, *wrong[place:]]
            question = " ".join(story[:given])
            found.append({"question": question, "choices": choices, "answer": place})
    return found


def last_words(stories: Iterable[str], *, given: int = 2) -> list[dict[str, Any]]:
    """Open questions: the last word of a sentence, which the story has used before."""
    found = []
    for story in map(_sentences, stories):
        for number in range(given, len(story)):
            match = _ENDING.match(story[number])
            before = " ".join([*story[:number], match[1] if match else ""])
            if match and match[2].lower() in re.findall(r"\w+", before.lower()):
                found.append({"question": before, "answers": [match[2]]})
                break
    return found


def write_questions(stories_file: pathlib.Path, out: pathlib.Path) -> None:
    """Writes both files."""
    stories = read_documents(stories_file)
    io.make_directory(out)
    for name, questions in (
        (LAST_WORD, last_words(stories)),
        (NEXT_SENTENCE, next_sentences(stories)),
    ):
        lines = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
        io.write_atomic(out / name, lines.encode())
        print(f"{out / name}: {len(questions)} questions of {len(stories)} stories")


def _sentences(story: str) -> list[str]:
    """On one line each."""
    return _SENTENCE_END.split(" ".join(story.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    write_questions(args.data / "tinystories" / "valid_1910.txt.gz", args.out)


if __name__ == "__main__":
    main()
