"""`generation_config.json` of a Hugging Face directory: the ids that end a sequence, no more."""

import pathlib
from typing import Any

from . import huggingface
from .errors import CheckpointError

__all__ = ["read_eos_ids"]

_NAME = "generation_config.json"


def read_eos_ids(directory: pathlib.Path, vocab_size: int) -> tuple[int, ...]:
    """Its `eos_token_id`, one or several; none where the file or the key is not there.

    Its other keys (temperature, top_p, ...) say how somebody sampled: what a run draws from is
    said by its options alone.

    Args:
      directory: of the model.
      vocab_size: of the model.

    Raises:
      CheckpointError: the file is damaged, or the value is no id of the model and no list of them.
    """
    file = directory / _NAME
    if not file.exists():
        return ()
    stated: Any = huggingface.read_json(file).get("eos_token_id")
    if stated is None:
        return ()
    ids = stated if isinstance(stated, list) else [stated]
    if not ids or not all(type(index) is int and 0 <= index < vocab_size for index in ids):
        raise CheckpointError(
            f"{file}: eos_token_id is {stated!r}: expected an id or a list of ids below the "
            f"{vocab_size} of the model; correct it, or take the file away to use config.json's"
        )
    return tuple(dict.fromkeys(ids))
