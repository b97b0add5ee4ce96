"""A llama2.c vocabulary made for a closed set of words: every word is one token.

llama2.c merges neighbouring pieces whose concatenation is a token. The vocabulary holds the
256 bytes, the characters, and every beginning of every word with its leading space
(`" L"`, `" Li"`, `" Lim"`, `" Lima"`). Apart from single characters each token starts with a
space, so the only possible merge is a word's beginning with its next character: each known
word becomes exactly one token whatever the scores, and other text falls back to characters
and bytes.
"""

import re
from collections.abc import Iterable

__all__ = ["vocabulary", "words"]

_WORD = re.compile(r"[^\W_]+")


def words(lines: Iterable[str]) -> set[str]:
    """The distinct words of the text, without punctuation."""
    return {word for line in lines for word in _WORD.findall(line)}


def vocabulary(lines: Iterable[str]) -> tuple[list[str], list[float]]:
    """Tokens and merge scores in llama2.c's order.

    Args:
      lines: text whose words shall be one token each.

    Returns:
      Tokens (`<unk>`, begin, end, bytes, characters, beginnings of words) and their scores.
    """
    lines = list(lines)
    beginnings = {f" {word[:n]}" for word in words(lines) for n in range(1, len(word) + 1)}
    characters = sorted({character for line in lines for character in line} | {" "})
    special = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*special, *characters, *sorted(beginnings)]
    merged = len(special) + len(characters)
    return tokens, [0.0] * merged + [-float(rank) for rank in range(len(beginnings))]
