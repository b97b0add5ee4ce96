"""Files of data sets on the Hugging Face hub: `hf://datasets/org/name[@revision]/path/to/file`.

One file is fetched into the cache that all of `huggingface_hub`'s users share, and read like any
local file: text, JSON or csv, plain or gzip. No script of a data set runs.
"""

import pathlib
import re

from .errors import CheckpointError
from .hub import SECONDS, fetched

__all__ = ["data_file"]

_SCHEME = "hf://"
_URL = re.compile(
    r"hf://datasets/(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[^/\s]+))?/(?P<file>\S+)",
    re.ASCII,
)


def data_file(path: str) -> pathlib.Path:
    """The local file of an address on the hub, downloaded where it is not in the cache yet.

    Args:
      path: local, or `hf://datasets/org/name[@revision]/path/to/file`; the revision is a branch,
        a tag or a commit.

    Returns:
      The place; what is no such address comes back as it is, whether it exists or not.

    Raises:
      CheckpointError: the address is malformed, the package is not installed, or the hub cannot be
        reached or refuses and the cache has no copy.
    """
    if not path.startswith(_SCHEME):
        return pathlib.Path(path)
    match = _URL.fullmatch(path)
    if match is None:
        raise CheckpointError(
            f"{path}: expected hf://datasets/org/name/path/to/file, with @revision behind the name "
            "if it matters"
        )
    repository, revision, file = match["repository"], match["revision"], match["file"]

    def ask(hub):
        hub.HfApi().dataset_info(repository, revision=revision, timeout=SECONDS)

    def get(hub, **more):
        given = {"repo_type": "dataset", "revision": revision, **more}
        return hub.hf_hub_download(repository, file, **given)

    return pathlib.Path(fetched(path, "as a file of the Hugging Face hub", ask, get))
