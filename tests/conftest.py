"""Shared fixtures. Functions are checked against their annotations."""

import importlib.metadata
import os
import pathlib

# Tests compile thousands of tiny programs: spend nothing on optimising them. Set before JAX starts.
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
# The older way to compile fused loops takes a third of the time; newer compilers have lost it.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))

# Workers and runs share what they compile.
_ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import jax
import pytest

from . import type_checks

type_checks.install()

# A slow machine is not a failure.
hypothesis.settings.register_profile("fishjax", deadline=None)
hypothesis.settings.load_profile("fishjax")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Thousands of programs take gigabytes; modules share none."""
    yield
    jax.clear_caches()


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
