r"""Whether a written answer is one of the true ones.

Both sides are compared as SQuAD and lm-eval's TriviaQA do: case, punctuation, the articles a, an,
the and white space make no difference. (TriviaQA's own script puts a space in place of punctuation:
there "Jean-Luc" is "Jean Luc", here it is "JeanLuc".) Beyond ASCII: characters are compared in
their compatibility form (NFKC: full-width and plain letters are the same), case by folding ("ß" is
"ss"), and punctuation is what Unicode calls so, with SQuAD's ASCII symbols and invisible format
characters. Punctuation is deleted, as in SQuAD: "U.S." is "us". An answer that is all punctuation
or all articles ("!!!", "The The") is compared with them.

References:
  Rajpurkar et al. (2016), arXiv 1606.05250; Joshi et al. (2017), arXiv 1705.03551.
"""

import string
import unicodedata
from collections.abc import Iterable

__all__ = ["clean_answer", "contains_match", "exact_match"]

_ARTICLES = frozenset(("a", "an", "the"))
_SYMBOLS = frozenset(string.punctuation + "´⁄−")  # NFKC would make ´ a space and an accent


def clean_answer(text: str) -> str:
    """The first line of a continuation, stripped; empty where the first line is blank."""
    return text.split("\n", 1)[0].strip()


def exact_match(text: str, aliases: Iterable[str]) -> bool:
    """Whether the text is one of the aliases.

    Args:
      text: the model's answer, see `clean_answer`.
      aliases: true answers.

    Example:
      >>> exact_match("The Beatles.", ["beatles", "Fab Four"])
      True
    """
    answer = _significant(_words(text))
    return any(answer == _significant(_words(alias)) for alias in aliases if alias.strip())


def contains_match(text: str, aliases: Iterable[str]) -> bool:
    """Whether an alias occurs in the text as whole words.

    More lenient than `exact_match` where the model answers in sentences; a text that lists
    guesses is right too. Words are what white space separates: in languages written without
    spaces this is `exact_match`.

    Args:
      text: the model's answer, see `clean_answer`.
      aliases: true answers.

    Example:
      >>> contains_match("It was Paris, of course", ["Paris"])
      True
    """
    words = _words(text)
    bare = _without_articles(words)
    for alias in aliases:
        wanted = _words(alias)
        kept = _without_articles(wanted)
        if _occurs(kept, bare) if kept else _occurs(wanted, words):
            return True
    return False


def _words(text: str) -> list[str]:
    """Lower-case words without punctuation, unless there is nothing else."""
    plain = unicodedata.normalize("NFKC", _without_punctuation(text)).casefold()
    return _without_punctuation(unicodedata.normalize("NFKC", plain)).split()


def _without_punctuation(text: str) -> str:
    kept = "".join(character for character in text if not _is_punctuation(character))
    return kept if kept.strip() else text


def _is_punctuation(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("P") or category == "Cf" or character in _SYMBOLS


def _without_articles(words: list[str]) -> list[str]:
    return [word for word in words if word not in _ARTICLES]


def _significant(words: list[str]) -> list[str]:
    return _without_articles(words) or words


def _occurs(wanted: list[str], words: list[str]) -> bool:
    """Whether the words hold the wanted ones, at least one, next to each other."""
    count = len(wanted)
    starts = range(len(words) - count + 1) if count else ()
    return any(words[start : start + count] == wanted for start in starts)
