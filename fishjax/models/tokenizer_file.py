"""llama2.c's tokenizer file: `int32 max_length`, then `float32 score, int32 length, bytes`."""

import pathlib
import struct
from collections.abc import Sequence

from .errors import TokenizerError
from .new_directory import new_file
from .tokenizer import Llama2cTokenizer

__all__ = ["read_llama2c_tokenizer", "save_llama2c_tokenizer"]


def read_llama2c_tokenizer(path: str | pathlib.Path) -> Llama2cTokenizer:
    """Reads `int32 max_length`, then per token `float32 score, int32 length, bytes`.

    Raises:
      TokenizerError: the file cannot be read, ends inside a token, or states an impossible length.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"cannot read tokenizer {path}: {error.strerror}") from None
    tokens, scores, offset = [], [], 4
    while offset < len(data):
        if offset + 8 > len(data):
            raise _cut_off(path, len(data), len(tokens))
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        if length < 0 or offset + length > len(data):
            raise _cut_off(path, len(data), len(tokens))
        tokens.append(data[offset : offset + length].decode("utf-8", "surrogateescape"))
        scores.append(score)
        offset += length
    try:
        return Llama2cTokenizer(tokens, scores)
    except TokenizerError as error:
        raise TokenizerError(f"tokenizer {path}: {error}") from None


def _cut_off(path: pathlib.Path, size: int, count: int) -> TokenizerError:
    return TokenizerError(
        f"tokenizer {path} ({size} bytes) breaks off in token {count}: truncated, or not a "
        "llama2.c tokenizer; copy it again"
    )


def save_llama2c_tokenizer(
    path: str | pathlib.Path, tokens: Sequence[str], scores: Sequence[float]
) -> None:
    """Writes a tokenizer that `read_llama2c_tokenizer` and llama2.c read.

    Args:
      path: file to write, by convention `tok<vocab_size>.bin` or `tokenizer.bin`.
      tokens: text of each id, with a plain space for SentencePiece's `▁`.
      scores: merge priority of each id.

    Raises:
      TokenizerError: what `Llama2cTokenizer` refuses.
    """
    Llama2cTokenizer(tokens, scores)
    encoded = [token.encode("utf-8", "surrogateescape") for token in tokens]
    data = bytearray(struct.pack("<i", max(map(len, encoded))))
    for token, score in zip(encoded, scores, strict=True):
        data += struct.pack("<fi", score, len(token)) + token
    new_file(pathlib.Path(path), bytes(data))
