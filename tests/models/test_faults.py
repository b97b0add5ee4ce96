"""A disk that fails at any call while a model is exported: the old files, or none."""

import dataclasses
import hashlib
import os

import jax
import pytest

from fishjax import models
from fishjax.models import DecoderConfig, init_params
from tests.failing_disk import FailingDisk, no_file_larger_than
from tests.models import hub

LORA = models.LoraConfig(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """name -> `(write(path), read(path))`."""
    model = models.load(hub.write(tmp_path_factory.mktemp("source") / "model", "llama"))
    config = dataclasses.replace(model.config, lora=LORA)
    adapters = models.init_adapters(config, jax.random.key(0))
    small = DecoderConfig(
        vocab_size=5, width=4, hidden_width=4, num_layers=1, num_heads=2, num_kv_heads=1,
        context_length=8,
    )  # fmt: skip
    params = jax.jit(lambda key: init_params(small, key))(jax.random.key(0))
    tokens = ["<unk>", "<s>", "</s>", "a", "b"]
    return {
        "llama2c": (lambda path: models.save_llama2c(path, params, small), models.load),
        "tokenizer": (
            lambda path: models.save_llama2c_tokenizer(path, tokens, [0.0] * 5),
            models.read_llama2c_tokenizer,
        ),
        "huggingface": (lambda path: models.save_huggingface(path, model), models.load),
        "adapter": (
            lambda path: models.save_adapter(path, adapters, LORA, model),
            lambda path: models.load_adapter(path, model),
        ),
    }


def bytes_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {f.relative_to(folder): hashlib.sha256(f.read_bytes()).digest() for f in files}


NAMES = ("llama2c", "tokenizer", "huggingface", "adapter")


@pytest.mark.parametrize("name", NAMES)
def test_an_export_appears_whole_or_not_at_all(name, exports, tmp_path):
    write, read = exports[name]
    path = tmp_path / "exported.bin"
    write(path)
    expected = bytes_of(tmp_path)
    read(path)
    failures = 0
    for old in (True, False):
        for allowed in range(100):
            if path.is_dir() or (path.exists() and not old):
                os.rename(path, tmp_path.parent / f"{name}{old}{allowed}")
            before = bytes_of(tmp_path)
            with FailingDisk(tmp_path, lambda call, n, allowed=allowed: n >= allowed) as disk:
                try:
                    write(path)
                except OSError as error:
                    assert "No space left" in str(error)  # noqa: PT017
            if not disk.hits:
                break
            failures += 1
            assert bytes_of(tmp_path) in (before, expected)
        assert bytes_of(tmp_path) == expected
    assert failures > 6


@pytest.mark.parametrize("name", ["huggingface", "adapter"])
def test_safetensors_on_a_full_disk_is_an_error_of_the_system(name, exports, tmp_path):
    """Its own exception is none that a caller who writes files expects."""
    with no_file_larger_than(300), pytest.raises(OSError, match=r"File too large.*safetensors"):
        exports[name][0](tmp_path / "exported")
    assert not list(tmp_path.iterdir())
