"""Data that ships with the package: the synthetic world and a small decoder trained on it.

`world/` holds the checkpoint of one training seed, its tokenizer, four question files in the
format of the `multiple_choice` task, the scores of the other training seeds on the same
questions, and a manifest with sizes, SHA-256 and the configuration. Everything is made by
`python -m experiments.world.bundle`.
"""

import gzip
import json
import pathlib
from contextlib import AbstractContextManager
from importlib import resources
from typing import Any

import numpy as np

__all__ = ["read_manifest", "read_questions", "read_stored_scores", "world_directory"]

_WORLD = resources.files(__name__) / "world"


def world_directory() -> AbstractContextManager[pathlib.Path]:
    """The folder of the world, as a real path for the duration of a `with`.

    It holds a checkpoint and its tokenizer, so it is a path for `fishjax.models.load` and for
    `fishjax score --model`, and the question files `<set>.jsonl`.
    """
    return resources.as_file(_WORLD)


def read_manifest() -> dict[str, Any]:
    """Files with sizes and SHA-256, world and training configuration, learning curves."""
    return json.loads((_WORLD / "manifest.json").read_text(encoding="utf-8"))


def read_questions(name: str) -> list[dict[str, Any]]:
    """The records of one question set.

    Raises:
      ValueError: no such set is bundled.
    """
    names = read_manifest()["question_sets"]
    if name not in names:
        raise ValueError(f"no bundled question set {name!r}: expected one of {', '.join(names)}")
    text = (_WORLD / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def read_stored_scores() -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Scores of the training seeds whose weights do not ship.

    Returns:
      Training seed, question set and column name to one number a question, in file order. The
      columns are `chosen` (index of the model's answer) and scores of the chosen answer.
    """
    data = json.loads(gzip.decompress((_WORLD / "stored_scores.json.gz").read_bytes()))
    return {
        int(seed): {
            name: {key: np.asarray(values) for key, values in columns.items()}
            for name, columns in sets.items()
        }
        for seed, sets in data.items()
    }
