"""Ids of the Hugging Face hub: `org/name` or `org/name@revision` as a local directory.

The optional package `huggingface_hub` downloads into the cache that all its users share. Only
configuration, safetensors and tokenizer files are fetched: nothing pickled, no code.
"""

import importlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .errors import CheckpointError

__all__ = ["ALL_FILES", "CONFIG_FILES", "SECONDS", "Located", "fetched", "is_hub_id", "locate"]

CONFIG_FILES = ("config.json",)
"""Enough for the architecture."""

ALL_FILES = (
    *CONFIG_FILES,
    "*.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
"""Everything that loading reads."""

# Folders hold other formats, as do the files that Mistral's repositories call consolidated.
_NEVER = (
    *("*/*", "consolidated*", "adapter_*"),
    *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pickle", "*.pkl", "*.h5", "*.py"),
)
_ID = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\S+))?", re.ASCII)
_FILE_ENDINGS = (".bin", ".json", ".safetensors", ".pt", ".pth", ".gguf")
SECONDS = 10.0
"""How long the hub may take to say whether it has something."""


class Located(NamedTuple):
    """Where a model lies.

    Attributes:
      path: local file or directory.
      name: the repository's, None for a local model.
      hub: `org/name@commit`, None for a local model.
    """

    path: pathlib.Path
    name: str | None = None
    hub: str | None = None


def is_hub_id(path: str | pathlib.Path) -> bool:
    """Whether this names no local file or directory and reads as `org/name[@revision]`."""
    match = _ID.fullmatch(str(path))
    return (
        match is not None
        and not match["repository"].endswith(_FILE_ENDINGS)
        and not pathlib.Path(path).exists()
    )


def locate(path: str | pathlib.Path, files: Sequence[str] = ALL_FILES) -> Located:
    """The local directory of a hub id, downloaded where it is not in the cache yet; else the path.

    Args:
      path: local, or `org/name[@revision]`; the revision is a branch, a tag or a commit.
      files: patterns of the files that are needed.

    Returns:
      The place; what is no hub id comes back as it is, whether it exists or not.

    Raises:
      CheckpointError: the package is not installed, the hub cannot be reached or refuses and the
        cache has no copy, or the repository has no `config.json`.
    """
    if not is_hub_id(path):
        return Located(pathlib.Path(path))
    match = _ID.fullmatch(str(path))
    assert match is not None  # is_hub_id says so
    repository, revision = match["repository"], match["revision"]
    directory = pathlib.Path(_downloaded(str(path), repository, revision, files))
    found = Located(directory, repository.split("/")[1], f"{repository}@{directory.name}")
    if not (directory / "config.json").exists():
        raise CheckpointError(
            f"{found.hub} of the Hugging Face hub has no config.json: expected a model with "
            "safetensors; adapters, GGUF and other formats are not read"
        )
    return found


def _downloaded(given: str, repository: str, revision: str | None, files: Sequence[str]) -> str:
    """The snapshot's directory, whose name is the commit."""
    wanted = {"allow_patterns": list(files), "ignore_patterns": list(_NEVER)}

    def ask(hub: Any) -> None:
        hub.HfApi().model_info(repository, revision=revision, timeout=SECONDS)

    def get(hub: Any, **more: Any) -> str:
        return hub.snapshot_download(repository, revision=revision, **more, **wanted)

    return fetched(given, "as an id of the Hugging Face hub", ask, get)


def fetched(given: str, how: str, ask: Callable[[Any], None], get: Callable[..., str]) -> str:
    """What `get` downloads, or finds in the cache where the hub does not answer.

    Args:
      given: what the user named.
      how: as what it was looked for.
      ask: `(huggingface_hub) -> None`: is it there? With a time limit, which a download has not.
      get: `(huggingface_hub, **options) -> local path`.

    Raises:
      CheckpointError: the package is not installed, or neither hub nor cache has it.
    """
    hub = _package(given)
    try:
        ask(hub)
        return get(hub)
    except Exception as error:  # the package raises those of its HTTP library, of no common base
        reason = error
    try:
        return get(hub, local_files_only=True)
    except Exception:
        raise CheckpointError(
            f"{given} is no file or directory here, and {how} it cannot be fetched "
            f"({_told(reason)}) and is not in the cache: {_advice(reason)}"
        ) from None


def _package(given: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise CheckpointError(
            f"{given} is no file or directory here; to fetch it from the Hugging Face hub: "
            "pip install 'fishjax[hub]', or download it and pass its path"
        ) from None


def _told(error: Exception) -> str:
    """The kind and the first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _advice(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RevisionNotFoundError" in kinds:
        return "check the revision after @"
    if "EntryNotFoundError" in kinds:
        return "check the path of the file"
    if kinds & {"RepositoryNotFoundError", "GatedRepoError", "HFValidationError"}:
        return "check the id, and for a private or gated model log in first (hf auth login)"
    return "the hub could not be reached: download it elsewhere and pass its path"
