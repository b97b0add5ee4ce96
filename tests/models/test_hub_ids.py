"""Ids of the Hugging Face hub: what is fetched, what is cached, and what is said without them."""

import json
import os
import pathlib
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
import tokenizers
from huggingface_hub.utils import filter_repo_objects

from fishjax import models
from fishjax.cli import main
from fishjax.models import hub as hub_ids

from . import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class UnreachableError(Exception):
    """As HTTP libraries have it: of no common base."""


class RepositoryNotFoundError(Exception):
    """Named as the package's own."""


class FakeHub(types.ModuleType):
    """The two functions of huggingface_hub that are used; `failure` is raised instead."""

    def __init__(self, cache):
        super().__init__("huggingface_hub")
        self.cache, self.failure, self.calls = cache, None, []

    def HfApi(self):  # noqa: N802
        return self

    def model_info(self, repository, *, revision, timeout):
        assert 0 < timeout < 60
        if self.failure is not None:
            raise self.failure

    def dataset_info(self, repository, *, revision, timeout):
        self.model_info(repository, revision=revision, timeout=timeout)

    def hf_hub_download(self, repository, file, **options):
        assert options["repo_type"] == "dataset"
        self.calls.append((repository, options))
        found = self.cache / f"datasets--{repository.replace('/', '--')}" / file
        if not found.exists():
            raise FileNotFoundError("nothing cached")
        return str(found)

    def snapshot_download(self, repository, **options):
        self.calls.append((repository, options))
        found = self.cache / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
        if not found.exists():
            raise FileNotFoundError("nothing cached\nand a second line")
        return str(found)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with one model, laid out as huggingface_hub does."""
    folder = tmp_path_factory.mktemp("cache")
    directory = hub.write(folder / "models--org--tiny" / "snapshots" / COMMIT, "llama")
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    return folder


@pytest.fixture
def fake(cache, monkeypatch):
    module = FakeHub(cache)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_an_id_is_loaded_from_the_snapshot(fake, cache):
    model = models.load("org/tiny@v1.0")
    directory = cache / "models--org--tiny/snapshots" / COMMIT
    assert (model.name, model.hub, model.path) == ("tiny", f"org/tiny@{COMMIT}", directory)
    local = models.load(directory)
    assert (local.name, local.hub, local.path) == (COMMIT, None, directory)
    assert local.fingerprint == model.fingerprint
    jax.tree.map(np.testing.assert_array_equal, model.params, local.params)
    ((repository, options),) = fake.calls
    assert (repository, options["revision"]) == ("org/tiny", "v1.0")
    assert models.load(model.hub).hub == model.hub
    assert fake.calls[-1][1]["revision"] == COMMIT


REPOSITORY = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt"),
    *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"),
]
OTHERS = [
    *("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "model.pth", "a.pickle"),
    *("modeling_tiny.py", "configuration_tiny.py", "README.md", "tf_model.h5", "tiny.gguf"),
    *(
        "consolidated.safetensors",
        "onnx/model.safetensors",
        "original/params.json",
        "sub/config.json",
    ),
    *("adapter_model.safetensors", "adapter_config.json", "training_args.bin", "onnx/model.onnx"),
]


def test_nothing_pickled_and_no_code_is_fetched(fake):
    models.load("org/tiny")
    models.describe("org/tiny")
    for (_, options), wanted in zip(fake.calls, (REPOSITORY, ["config.json"]), strict=True):
        patterns = {n: options[n] for n in ("allow_patterns", "ignore_patterns")}
        fetched = list(filter_repo_objects([*REPOSITORY, *OTHERS], **patterns))
        assert fetched == wanted


def test_without_the_hub_the_cache_is_enough(fake):
    fake.failure = UnreachableError("no route")
    assert models.load("org/tiny").hub == f"org/tiny@{COMMIT}"
    assert [options.get("local_files_only") for _, options in fake.calls] == [True]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (UnreachableError("no route\n to host"), r"UnreachableError: no route\) and is not in the "
         "cache: the hub could not be reached: download it elsewhere"),
        (UnreachableError(), r"\(UnreachableError\)"),
        (RepositoryNotFoundError("401"), "check the id, and for a private or gated model log in"),
        (None, r"\(FileNotFoundError: nothing cached\) .* could not be reached"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_one_line(fake, failure, message):
    fake.failure = failure
    with pytest.raises(models.CheckpointError, match=message) as raised:
        models.load("org/absent@main")
    assert str(raised.value).startswith(
        "org/absent@main is no file or directory here, and as an id"
    )
    assert "\n" not in str(raised.value)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = r"org/tiny is no file or directory here; .* pip install 'fishjax\[hub\]', or download"
    with pytest.raises(models.CheckpointError, match=message):
        models.load("org/tiny")


def test_a_repository_of_another_kind_is_refused(fake, tmp_path):
    fake.cache = tmp_path
    folder = tmp_path / "models--org--other/snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    for read in (models.load, models.describe):
        with pytest.raises(models.CheckpointError, match=r"has no config\.json: expected a model"):
            read("org/other")


@pytest.mark.parametrize(
    "path",
    [
        *("missing", "/org/name", "a/b/c", "../name", "~/name", "org/model.bin", "org/config.json"),
        *("", "org/", "/name", "org/-name", ".org/name", "órg/name", "org/name@", "org/na me"),
    ],
)
def test_what_looks_like_no_id_keeps_its_error(fake, path):
    assert not hub_ids.is_hub_id(path)
    with pytest.raises(models.CheckpointError, match=r"no checkpoint at|holds 0 checkpoints"):
        models.load(path)
    assert not fake.calls


def test_a_local_directory_comes_first(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.write(tmp_path / "org/tiny", "llama")
    model = models.load("org/tiny")
    assert (model.name, model.hub, model.path) == ("tiny", None, pathlib.Path("org/tiny"))
    assert not fake.calls


def test_what_is_tuned_takes_the_tokenizer_of_the_snapshot(fake, tmp_path):
    data = tmp_path / "text.txt"
    data.write_text("w3 w4 w5 w6 w7 w8 w9\n")
    numbers = {"--steps": "1", "--batch": "1", "--length": "4"}
    words = [*("--data", str(data), "--full"), *(w for pair in numbers.items() for w in pair)]
    out = tmp_path / "out"
    assert main(["finetune", "--model", "org/tiny", *words, "--out", str(out), "--quiet"]) == 0
    assert json.loads((out / "run.json").read_text())["model_hub"] == f"org/tiny@{COMMIT}"
    ids = models.load(out / "model").tokenizer.encode("w3 w4", bos=False)
    assert ids == [3, 4]


def test_a_run_says_which_commit_it_used(fake, tmp_path):
    data = tmp_path / "q.jsonl"
    data.write_text(json.dumps({"question": "w3 w4", "answers": ["w5"]}) + "\n")
    out = ["--out", str(tmp_path / "out"), "--max-tokens", "2", "--quiet"]
    words = ["--task", "open_qa", "--data", str(data), *out]
    assert main(["generate", "--model", "org/tiny", *words]) == 0
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert (manifest["model"], manifest["model_hub"]) == ("tiny", f"org/tiny@{COMMIT}")


@pytest.mark.parametrize(
    "offline", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_the_real_package_gives_up_soon(tmp_path, offline):
    """Where nothing listens, and where it is told to stay offline."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    environment = {n: v for n, v in os.environ.items() if n.lower() not in proxies}
    environment |= {"HF_HOME": str(tmp_path / "cache"), **offline}
    command = [sys.executable, "-m", "fishjax", "inspect", "org/name@main"]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert time.monotonic() - start < 60
    assert done.returncode == 2
    assert done.stderr.startswith("error: org/name@main is no file or directory here, and as an id")
    assert "pass its path" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def questions(fake):
    """A question file in the cache, and its address."""
    folder = fake.cache / "datasets--org--quiz/sub"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "q.jsonl").write_text(json.dumps({"question": "w3 w4", "answers": ["w5"]}) + "\n")
    return "hf://datasets/org/quiz@v2/sub/q.jsonl"


def test_a_question_file_comes_from_the_hub(fake, questions, tmp_path):
    words = ["--task", "open_qa", "--data", questions, "--max-tokens", "2", "--quiet"]
    assert main(["generate", "--model", "org/tiny", *words, "--out", str(tmp_path / "out")]) == 0
    ((repository, options), *_) = fake.calls
    assert (repository, options["revision"]) == ("org/quiz", "v2")
    (row,) = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    assert json.loads(row)["aliases"] == ["w5"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://datasets/org/quiz/none.jsonl", "as a file of the Hugging Face hub it cannot be"),
        ("hf://datasets/org", "expected hf://datasets/org/name/path/to/file"),
        ("hf://models/org/name/file", "expected hf://datasets/org/name/path/to/file"),
    ],
)
def test_what_the_hub_has_not_is_one_line(fake, address, message, tmp_path, capsys):
    words = ["--task", "open_qa", "--data", address, "--out", str(tmp_path / "out")]
    assert main(["generate", "--model", "org/tiny", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
