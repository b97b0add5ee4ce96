"""llama2.c's tokenizer: byte-fallback BPE that merges the best-scoring pair first."""

import heapq
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from .errors import TokenizerError

__all__ = [
    "Llama2cTokenizer",
    "MissingTokenizer",
    "Tokenizer",
]

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
LOWEST_SCORE = -1e10  # llama2.c never merges into a token with a score at or below it


@runtime_checkable
class Tokenizer(Protocol):
    """What scoring text needs of a tokenizer."""

    @property
    def bos_id(self) -> int:
        """Id that starts a sequence."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a sequence."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Ids of `text`, with `bos_id` in front if `bos`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`."""
        ...


class Llama2cTokenizer:
    """Encodes and decodes exactly as llama2.c's `run.c`.

    A space is put before non-empty text; each character becomes its token, or the tokens
    `<0xXX>` of its UTF-8 bytes; then the neighbouring pair whose concatenation is the token
    of highest score is merged, leftmost first among equals, until none is left.

    Two things make it fast without changing the result: merges come from a heap, and text is
    cut wherever no token contains the two characters side by side (no merge can cross such a
    place), so the ids of a piece are computed once and remembered.

    Args:
      tokens: text of each id; ids 1 and 2 are begin and end of sequence.
      scores: merge priority of each id, higher first.

    Raises:
      TokenizerError: fewer than 3 tokens, as many scores are not given, or a score is NaN.
    """

    bos_id = 1
    eos_id = 2

    def __init__(self, tokens: Sequence[str], scores: Sequence[float]):
        if len(tokens) < 3 or len(tokens) != len(scores):
            raise TokenizerError(
                f"{len(tokens)} tokens and {len(scores)} scores: expected as many of each, and "
                "at least 3 (unknown, begin and end of sequence)"
            )
        self._tokens = tuple(tokens)
        self._scores = np.asarray(scores, np.float32).tolist()
        if np.isnan(self._scores).any():
            bad = int(np.isnan(self._scores).argmax())
            raise TokenizerError(f"the score of token {bad} is NaN: expected a number")
        self._ids: dict[str, int] = {}
        for index, token in enumerate(self._tokens):
            self._ids.setdefault(token, index)
        self._joined = {pair for token in tokens for pair in itertools.pairwise(token)}
        # A longer token that spells out a byte token could merge across any cut.
        self._cuts = not any(BYTE_TOKEN.search(t) and not BYTE_TOKEN.fullmatch(t) for t in tokens)
        self._remembered: dict[str, tuple[int, ...]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._tokens)

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Ids of `text`, with `bos_id` in front if `bos`.

        Raises:
          TokenizerError: a character is not in the vocabulary and neither are its bytes.
        """
        ids = [self.bos_id] if bos else []
        for piece in self._pieces(" " + text) if text else ():
            if piece not in self._remembered:
                if len(self._remembered) >= 1 << 18:  # bounded on texts without repetition
                    self._remembered.clear()
                self._remembered[piece] = tuple(self._merge(self._characters(piece)))
            ids.extend(self._remembered[piece])
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`: no space right after `bos_id`, which like `eos_id` has no text itself.

        Bytes that are not UTF-8 come out as U+FFFD.

        Raises:
          TokenizerError: an id is outside the vocabulary.
        """
        text, previous = bytearray(), None
        for index in map(int, ids):
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"id {index} is outside the {self.vocab_size} tokens")
            if index not in (self.bos_id, self.eos_id):
                token = self._tokens[index]
                byte = BYTE_TOKEN.fullmatch(token)
                if previous == self.bos_id:
                    token = token.removeprefix(" ")
                text += bytes.fromhex(byte[1]) if byte else token.encode("utf-8", "surrogateescape")
            previous = index
        return text.decode("utf-8", "replace")

    def _pieces(self, text: str) -> Iterable[str]:
        if not self._cuts:
            yield text
            return
        start, joined = 0, self._joined
        for index, pair in enumerate(itertools.pairwise(text), start=1):
            if pair not in joined:
                yield text[start:index]
                start = index
        yield text[start:]

    def _characters(self, text: str) -> list[int]:
        ids = []
        for character in text:
            if character in self._ids:
                ids.append(self._ids[character])
                continue
            try:
                ids.extend(self._ids[f"<0x{byte:02X}>"] for byte in character.encode())
            except (KeyError, UnicodeEncodeError):
                raise TokenizerError(
                    f"character {character!a} is not in the vocabulary of {self.vocab_size} "
                    "tokens, and neither are its bytes: remove it from the text"
                ) from None
        return ids

    def _merge(self, ids: list[int]) -> list[int]:
        """Merges pairs; `following` and `preceding` link the ids that are left."""
        following = list(range(1, len(ids) + 1))
        preceding = list(range(-1, len(ids) - 1))
        heap: list[tuple[float, int, int, int, int]] = []

        def propose(left):
            if left >= 0 and following[left] < len(ids):
                a, b = ids[left], ids[following[left]]
                merged = self._ids.get(self._tokens[a] + self._tokens[b])
                if merged is not None and self._scores[merged] > LOWEST_SCORE:
                    heapq.heappush(heap, (-self._scores[merged], left, merged, a, b))

        for left in range(len(ids)):
            propose(left)
        while heap:
            _, left, merged, a, b = heapq.heappop(heap)
            right = following[left]
            if ids[left] != a or right >= len(ids) or ids[right] != b:
                continue  # one of the two has been merged since
            ids[left], ids[right] = merged, -1
            following[left] = following[right]
            if following[left] < len(ids):
                preceding[following[left]] = left
            propose(preceding[left])
            propose(left)
        return [index for index in ids if index >= 0]


class MissingTokenizer:
    """Stands in for a tokenizer that was not found; fails only when text is needed.

    Args:
      reason: what was looked for and where.
      vocab_size: the model's number of ids.
    """

    bos_id = 1
    eos_id = 2

    def __init__(self, reason: str, vocab_size: int):
        self.reason = reason
        self.vocab_size = vocab_size

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Raises TokenizerError."""
        raise TokenizerError(self.reason)

    def decode(self, ids: Iterable[int]) -> str:
        """Raises TokenizerError."""
        raise TokenizerError(self.reason)
