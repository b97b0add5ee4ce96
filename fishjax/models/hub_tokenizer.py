"""Tokenizers of Hugging Face directories, by the `tokenizers` library."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import tokenizers

from .errors import TokenizerError

__all__ = ["HubTokenizer", "read_hub_tokenizer"]


class HubTokenizer:
    """Encodes and decodes as the file says; truncation and padding of the file are switched off.

    Attributes:
      bos_id: id that starts a sequence; the end's where there is none of its own.
      eos_id: id that ends a sequence.
      adds_bos: the file puts `bos_id` in front of a text.
      chat_template: Jinja template of `tokenizer_config.json`, or None.
      special: text of special tokens by name ("bos_token", ...), for the template.

    Args:
      tokenizer: of the `tokenizers` library.
      settings: of `tokenizer_config.json`.
      bos_id: of `config.json`, used where the settings name no token.
      eos_id: likewise.

    Raises:
      TokenizerError: neither a begin nor an end of sequence is known.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        settings: dict[str, Any],
        *,
        bos_id: int | None = None,
        eos_id: int | None = None,
    ):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.special = {
            name: text
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (text := _token_text(settings.get(name))) is not None
        }
        first = tokenizer.encode("a", add_special_tokens=True).ids[:1]
        plain = tokenizer.encode("a", add_special_tokens=False).ids[:1]
        own = {n: tokenizer.token_to_id(text) for n, text in self.special.items()}
        bos = own.get("bos_token", bos_id)
        eos = own.get("eos_token", eos_id)
        self.adds_bos = first != plain
        bos = first[0] if self.adds_bos else bos
        if settings.get("add_bos_token") is True and bos is not None:
            self.adds_bos = True
        if settings.get("add_bos_token") is False:
            self.adds_bos = False
        if bos is None and eos is None:
            raise TokenizerError(
                "neither begin nor end of sequence is known: expected bos_token or eos_token in "
                "tokenizer_config.json, or their ids in config.json"
            )
        self.bos_id: int = eos if bos is None else bos  # type: ignore[assignment]
        self.eos_id: int = bos if eos is None else eos  # type: ignore[assignment]
        self.chat_template: str | None = settings.get("chat_template")

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Ids of `text`, with `bos_id` in front if `bos`.

        Raises:
          TokenizerError: the text is not Unicode, or the vocabulary lacks its own unknown token.
        """
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{text[:40]!a} cannot be encoded: {error}") from None
        return [self.bos_id, *ids] if bos else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without special tokens.

        Raises:
          TokenizerError: an id is outside the vocabulary.
        """
        listed = [int(index) for index in ids]
        for index in listed:
            if not 0 <= index < self.vocab_size:
                raise TokenizerError(f"id {index} is outside the {self.vocab_size} tokens")
        return self._tokenizer.decode(listed, skip_special_tokens=True)


def read_hub_tokenizer(directory: pathlib.Path, config: dict[str, Any]) -> HubTokenizer | None:
    """`tokenizer.json`, or `vocab.json` with `merges.txt`; None where there is neither.

    Args:
      directory: of the model.
      config: `config.json`, for the ids of begin and end of sequence.

    Raises:
      TokenizerError: a file is damaged.
    """
    whole, vocabulary = directory / "tokenizer.json", directory / "vocab.json"
    try:
        if whole.exists():
            tokenizer = tokenizers.Tokenizer.from_file(str(whole))
        elif vocabulary.exists() and (directory / "merges.txt").exists():
            tokenizer = _byte_level(vocabulary, directory / "merges.txt")
        else:
            return None
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"tokenizer of {directory}: {error}: copy it again") from None
    settings = _settings(directory)
    ids = {f"{name}_id": _first_id(config.get(f"{name}_token_id")) for name in ("bos", "eos")}
    try:
        return HubTokenizer(tokenizer, settings, **ids)
    except Exception as error:  # the library raises bare Exception where it cannot encode
        raise TokenizerError(f"tokenizer of {directory}: {error}") from None


def _settings(directory: pathlib.Path) -> dict[str, Any]:
    file, template = directory / "tokenizer_config.json", directory / "chat_template.jinja"
    settings: Any = {}
    try:
        if file.exists():
            settings = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("not an object")
        if template.exists():
            settings = settings | {"chat_template": template.read_text(encoding="utf-8")}
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{file}: {error}: copy it again") from None
    templates = settings.get("chat_template")
    if isinstance(templates, list):  # several by name
        named = {t.get("name"): t.get("template") for t in templates if isinstance(t, dict)}
        settings = settings | {"chat_template": named.get("default")}
    return settings


def _byte_level(vocabulary: pathlib.Path, merges: pathlib.Path) -> tokenizers.Tokenizer:
    """GPT-2's byte-level BPE."""
    model = tokenizers.models.BPE.from_file(str(vocabulary), str(merges))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    ends = [t for t in ("<|endoftext|>",) if tokenizer.token_to_id(t) is not None]
    tokenizer.add_special_tokens(ends)
    return tokenizer


def _token_text(value: Any) -> str | None:
    """A token is text, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _first_id(value: Any) -> int | None:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None
