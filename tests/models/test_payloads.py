"""Checkpoints of strangers execute nothing, wherever they put a pickle or a name of a class."""

import json
import pathlib
import pickle
import shutil

import pytest

from fishjax import io, models
from fishjax.io.checkpoints import load_tree
from tests.models import hub

REFUSED = (models.CheckpointError, models.TokenizerError, io.RowsError)


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path):
    """Exists when code of a file was run."""
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()
    mark.unlink()
    return mark


@pytest.fixture
def payload(mark):
    return pickle.dumps(Payload(mark))


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"],
)
def test_a_pickle_in_place_of_a_file(name, payload, mark, tmp_path):
    directory = hub.write(tmp_path / "model", "llama")
    if name == "tokenizer_config.json":
        (directory / "tokenizer.json").write_text("{}")
    if name == "vocab.json":
        (directory / "merges.txt").write_text("")
    (directory / name).write_bytes(payload)
    with pytest.raises(REFUSED):
        models.load(directory)
    assert not mark.exists()


def test_pickles_beside_a_model_are_not_read(payload, mark, tmp_path):
    directory = hub.write(tmp_path / "model", "llama")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.py"):
        (directory / name).write_bytes(payload)
    assert models.load(directory).config.vocab_size
    assert not mark.exists()


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc"])
def test_a_model_that_is_only_pickled_says_what_to_do(start, payload, mark, tmp_path):
    directory = hub.write(tmp_path / "model", "llama")
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(start + payload)
    with pytest.raises(models.CheckpointError, match="never read; convert them to safetensors"):
        models.load(directory)
    (directory / "config.json").unlink()
    for path in (directory, directory / "pytorch_model.bin"):
        with pytest.raises(models.CheckpointError, match=r"model\.bin: .*convert it"):
            models.load(path)
    assert not mark.exists()


def test_code_that_a_config_names_is_not_imported(mark, tmp_path):
    directory = hub.write(tmp_path / "model", "llama")
    (directory / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()")
    values = json.loads((directory / "config.json").read_text())
    values["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
    (directory / "config.json").write_text(json.dumps(values))
    try:
        models.load(directory)
    except models.CheckpointError as error:
        assert "auto_map" in str(error)  # noqa: PT017
    assert not mark.exists()


def test_pickles_in_adapters_and_stored_arrays(payload, mark, tmp_path):
    model = models.load(hub.write(tmp_path / "model", "llama"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = dict(peft_type="LORA", r=2, lora_alpha=4, target_modules=["q_proj"], bias="none")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (adapter / name).write_bytes(payload)
        with pytest.raises(models.CheckpointError):
            models.load_adapter(adapter, model)
    shutil.rmtree(adapter)
    tree = tmp_path / "tree"
    io.make_directory(tree)
    (tree / "structure.json").write_bytes(payload)
    with pytest.raises(io.RowsError, match="damaged or incomplete"):
        load_tree(tree)
    assert not mark.exists()
