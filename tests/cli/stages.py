"""Small runs of every command that writes, and what lets them run again and again in seconds."""

import dataclasses
import functools
import json
import random
import shutil
from typing import NamedTuple

import jax
import numpy as np
import tokenizers

from fishjax import models
from fishjax.cli import finetune, fisher, generate, main, programs, score
from fishjax.models import huggingface

NOUNS = ("cat", "dog", "cow", "hen")
VERBS = ("eat", "see", "run")


def write_corpus(path, num_documents=12):
    """Documents of a few words each."""
    rng = random.Random(0)
    documents = [
        " ".join(f"{noun} {rng.choice(VERBS)}" for noun in rng.choices(NOUNS, k=rng.randint(2, 4)))
        for _ in range(num_documents)
    ]
    path.write_text("\n<|endoftext|>\n".join(documents))
    return path


def write_open_questions(path, num_questions=5):
    """Questions with answers of one word."""
    lines = []
    for i in range(num_questions):
        noun, more = NOUNS[i % 4], i % 2 * " eat"  # of two lengths: batches in another order
        text = f"Question: {noun}{more} {VERBS[i % 3]}\nAnswer:"
        lines.append({"id": f"o{i}", "question": text, "answers": [noun]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_hub_model(folder):
    """A tiny Llama as a Hugging Face directory, with a tokenizer of words."""
    folder.mkdir()
    values = dict(
        model_type="llama", vocab_size=12, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=48,
        bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))
    config, family = models.config_from_json(values)
    shapes = jax.eval_shape(lambda key: models.init_params(config, key), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    huggingface.write_params(folder, params, config, family)
    words = {word: i for i, word in enumerate(("<s>", "</s>", "<unk>", *NOUNS, *VERBS))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def words_of(command, *flags, **options):
    """A command line."""
    pairs = [str(x) for n, v in options.items() for x in (f"--{n.replace('_', '-')}", v)]
    return [*command.split(), *flags, *pairs]


class Stages:
    """Command lines of all stages, each with its undisturbed run, made when first asked for."""

    def __init__(self, folder, tiny):
        self.folder, self._tiny = folder, tiny
        text = write_corpus(folder / "corpus.txt")
        questions = write_open_questions(folder / "open.jsonl")
        hub = write_hub_model(folder / "hub")
        own, theirs = dict(model=tiny.model), dict(model=hub)
        choices = dict(task="multiple_choice", data=tiny.data, batch_tokens=48)
        tuned = dict(data=text, length=8, batch=4, steps=4, checkpoint_every=2, lora_rank=2)
        fish = dict(data=text, length=8, batch=4, checkpoint_every=2, limit=8)
        self._words = {
            "score": words_of("score", **own, **choices),
            "text": words_of("score", "--no-plots", **own, task="text", data=text, stride=20),
            "generate": words_of(
                "generate", **own, task="open_qa", data=questions, samples=1, batch=2, max_tokens=4
            ),
            "generations": words_of(
                "score", "--no-plots", **own, generations=folder / "generate", batch_tokens=64
            ),
            "fisher": words_of("fisher", **own, **fish, kind="ekfac"),
            "merge": ["fisher", "merge", str(folder / "worker0"), str(folder / "worker1")],
            "worker0": words_of("fisher", "--no-plots", **own, **fish, shard="0/2"),
            "worker1": words_of("fisher", "--no-plots", **own, **fish, shard="1/2"),
            "adapters": words_of("finetune", "--merge", **theirs, **tuned),
            "full": words_of(
                "finetune", "--full", **own, data=text, length=8, batch=4, steps=2,
                checkpoint_every=1,
            ),
        }  # fmt: skip
        self._needs = {"generations": ["generate"], "merge": ["worker0", "worker1"]}

    def words(self, name, out):
        """Its command line into `out`; what it reads is there."""
        for needed in self._needs.get(name, ()):
            self.undisturbed(needed)
        return [*self._words[name], "--out", str(out), "--quiet"]

    @functools.cache  # noqa: B019  lives as long as a module's tests
    def undisturbed(self, name):
        """The directory of a run that nothing disturbed; read only."""
        assert main(self.words(name, self.folder / name)) == 0
        return self.folder / name


class FakePrograms(programs.Programs):
    """Stands in for the compiled steps of `score` where only what surrounds them is tested."""

    def memory_bytes(self, batch):
        del batch
        return 10**18

    def __call__(self, batch):
        shape = batch.mask.shape
        rng = np.random.default_rng(int(batch.indices.max()))
        log_likelihoods = np.where(batch.mask, -rng.exponential(size=shape), -np.inf)
        values = log_likelihoods.astype(np.float32)
        with np.errstate(invalid="ignore"):  # of places without a question
            log_probabilities = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
        return score.StepOutputs(
            log_likelihoods=values,
            log_probabilities=log_probabilities,
            finite=np.ones(shape[0], bool),
            chosen=np.argmax(values, axis=1),
            tied=np.zeros(shape[0], bool),
            scores={row.name: values for row in score.SCORES},
            token_scores={},
            token_values={},
            shares={"head": np.ones(shape[0], np.float32)},
        )


class Kept(NamedTuple):
    """Inputs and compiled programs that runs of the same command line share."""

    jobs: dict
    steps: dict

    def share(self, monkeypatch):
        """Lets the commands take them from here: a run then is a matter of its writes."""
        for module, name in (
            (score, "prepare_job"),
            (generate, "prepare_generate_job"),
            (fisher, "prepare_fisher_job"),
            (finetune, "prepare_finetune_job"),
        ):
            monkeypatch.setattr(module, name, self._once(getattr(module, name)))
        monkeypatch.setattr(finetune, "tuning_step", self._step(finetune.tuning_step))

    def _once(self, prepare):
        def prepared(settings):
            values = dict(getattr(settings, "__dict__", None) or settings._asdict())
            key = prepare.__name__, repr({n: v for n, v in values.items() if n != "out"})
            if key not in self.jobs:
                self.jobs[key] = prepare(settings)
            return _with_own_params(self.jobs[key])

        return prepared

    def _step(self, build):
        def built(apply_fn, tuning):
            return self.steps.setdefault((apply_fn, tuning), build(apply_fn, tuning))

        return built


def _with_own_params(job):
    """Parameters that are trained are updated in place."""
    if getattr(job, "lora", job) is not None:
        return job
    params = jax.tree.map(jax.numpy.copy, job.model.params)
    return job._replace(model=dataclasses.replace(job.model, params=params))


def fresh(folder, name):
    """An absent directory."""
    shutil.rmtree(folder / name, ignore_errors=True)
    return folder / name
