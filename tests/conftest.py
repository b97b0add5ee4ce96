"""Shared fixtures. Public functions are checked against their jaxtyping annotations."""

import os
import pathlib

import jaxtyping
import pytest

jaxtyping.install_import_hook("fishjax", "beartype.beartype")


def shared_root() -> pathlib.Path:
    return pathlib.Path(os.environ.get("FISHJAX_SHARED", "../shared"))


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """`$FISHJAX_SHARED/data`; skips where it is absent, fails where it is absent and CI=true."""
    data = shared_root() / "data"
    if data.is_dir():
        return data
    message = f"no {data}: set FISHJAX_SHARED to the folder that holds data/"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
