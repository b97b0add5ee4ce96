"""A tiny random model, its questions, and one finished run of it, shared by the session."""

import itertools
import json
import pathlib
import shutil
import signal
from typing import NamedTuple

import jax
import numpy as np
import pytest

from fishjax.cli import main, score
from fishjax.models import DecoderConfig, init_params, save_llama2c, save_llama2c_tokenizer

from .stages import NOUNS, VERBS, FakePrograms, Kept, Stages


def make_questions():
    """Twelve questions with 3 choices of 1 to 3 words, two of them with 2 choices.

    Alike enough to be one shape: compiling takes most of the time of these tests.
    """
    questions = []
    for i in range(12):
        noun, other = NOUNS[i % 4], NOUNS[(i + 1) % 4]
        choices = [noun, f"{noun} {VERBS[i % 3]}", f"{other} {noun} {VERBS[(i + 1) % 3]}"]
        questions.append(
            {
                "id": f"q{i}",
                "question": f"{other} {VERBS[i % 3]} {noun}",
                "choices": choices[1:] if i in (1, 7) else choices,
                "answer": i % 2,
            }
        )
    return questions


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def words_and_scores(more=""):
    """llama2.c's layout without byte tokens, so that foreign characters are an error."""
    text = " ".join((*NOUNS, *VERBS, "Question: Answer:"))
    starts = {f" {word[:n]}" for word in text.split() for n in range(1, len(word) + 1)}
    characters = sorted(set(text) | {" ", "\n", ":"} | set(more))
    tokens = ["<unk>", "\n<s>\n", "\n</s>\n", *characters, *sorted(starts)]
    return tokens, [-float(i) for i in range(len(tokens))]


def write_model(folder, more="", overflow=None, **changes):
    """A checkpoint with reproducible random weights and its tokenizer.

    Activations overflow where the word `overflow` is read, from that token on, and nowhere else:
    channel 0 is its alone, and the first hidden unit sees nothing else, 1e20 times.
    """
    tokens, scores = words_and_scores(more)
    sizes = {
        "vocab_size": len(tokens), "width": 8, "hidden_width": 12, "num_layers": 2,
        "num_heads": 2, "num_kv_heads": 1, "context_length": 48,
    }  # fmt: skip
    config = DecoderConfig(**(sizes | changes))
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    if overflow is not None:
        layers = params["layers"]
        for array in (params["embedding"], layers["attention"]["output"], layers["mlp"]["down"]):
            array[..., 0] = 0
        params["embedding"][tokens.index(f" {overflow}")] = np.eye(config.width)[0]
        for name in ("gate", "up"):
            layers["mlp"][name][..., 0] = 1e20 * np.eye(config.width)[0]
    folder.mkdir(exist_ok=True)
    save_llama2c(folder / "tiny.bin", params, config)
    save_llama2c_tokenizer(folder / "tok.bin", tokens, scores)
    return folder


class Tiny(NamedTuple):
    model: pathlib.Path
    data: pathlib.Path
    questions: list[dict]

    def score_arguments(self, out, *more, **changes):
        """Arguments of a small, quick run; 48 tokens a batch make many batches."""
        options = {
            "model": self.model, "task": "multiple_choice", "data": self.data, "out": out,
            "batch-tokens": 48,
        } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
        pairs = [[f"--{name}", str(value)] for name, value in options.items()]
        return ["score", *itertools.chain.from_iterable(pairs), *more]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    questions = make_questions()
    data = write_jsonl(folder / "questions.jsonl", questions)
    return Tiny(write_model(folder / "model"), data, questions)


@pytest.fixture(scope="session")
def finished_run(tiny, tmp_path_factory):
    """A finished run; read only."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(tiny.score_arguments(out, "--quiet", "--per-token")) == 0
    return out


@pytest.fixture
def finished_copy(finished_run, tmp_path):
    """A finished run to damage."""
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def stages(tiny, tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("stages"), tiny)


@pytest.fixture(scope="module")
def kept():
    """Forgotten with a module's compiled programs."""
    return Kept({}, {})


@pytest.fixture
def quick(monkeypatch, kept):
    """Commands share inputs and compiled programs, and draw no plots: a run is its writes."""
    kept.share(monkeypatch)
    monkeypatch.setattr(score, "Programs", FakePrograms)
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"a picture")
    )


@pytest.fixture
def jsonl():
    return write_jsonl


@pytest.fixture(scope="session")
def make_model():
    return write_model


@pytest.fixture
def own_signals():
    """Handlers of a shell's foreground: what a shell puts into the background ignores SIGINT."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
