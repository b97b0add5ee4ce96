"""Trains one small decoder on the synthetic world and writes it as a llama2.c checkpoint.

Purpose: a language model whose epistemic uncertainty (facts stated 0 to 64 times) and aleatoric
uncertainty (facts stated with conflicting values) are known by construction, so that scores of
"parameter uncertainty" (Grünefeld, Frellsen and Hardmeier 2026, arXiv 2603.29466) can be
compared with the truth. The world is the same for every training seed; the seed changes
initial weights and data order. Every line of the training text is one document.

Command:   python -m experiments.world.train --seed 0 --out runs/world/seed0
Smoke:     python -m experiments.world.train --smoke --out runs/world/smoke    (seconds)
Duration:  see experiments/README.md.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fishjax import models
from fishjax.tasks.world import WorldConfig, make_world, training_text
from fishjax.tasks.world_questions import question_sets
from fishjax.tasks.world_vocabulary import vocabulary


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What is trained, and how."""

    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    seed: int = 0
    width: int = 96
    hidden_width: int = 256
    num_layers: int = 3
    num_heads: int = 4
    context_length: int = 32
    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01


SMOKE = TrainConfig(
    world=WorldConfig(facts_per_cell=2, exposures=(0, 1, 16), filler_people=4),
    width=16,
    hidden_width=32,
    num_layers=1,
    num_heads=2,
    epochs=2,
    batch_size=32,
)


def tokenise(lines: list[str], tokenizer: models.Tokenizer) -> np.ndarray:
    """Token ids `[N, T]`, each line after BOS, padded on the right with 0 (`<unk>`)."""
    ids = [tokenizer.encode(line, bos=True) for line in lines]
    padded = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, line in zip(padded, ids, strict=True):
        row[: len(line)] = line
    return padded


def token_log_probabilities(apply_fn, params, token_ids: jax.Array) -> jax.Array:
    """Log-probability of every token after the first, `[N, T - 1]`; 0 at padding."""
    logits = apply_fn(params, token_ids[:, :-1])
    targets = token_ids[:, 1:]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return jnp.where(targets == 0, 0.0, chosen)


def make_step(apply_fn, optimiser: optax.GradientTransformation):
    """One AdamW step on the mean negative log-likelihood per token."""

    def loss(params, token_ids):
        total = token_log_probabilities(apply_fn, params, token_ids).sum()
        return -total / jnp.sum(token_ids[:, 1:] != 0)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, token_ids):
        value, gradient = jax.value_and_grad(loss)(params, token_ids)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def answer_log_likelihoods(apply_fn, params, questions, tokenizer) -> np.ndarray:
    """Log-likelihood of each question with each of its choices, `[Q, K]` (prompt included)."""
    texts = [f"{q['question']} {choice}" for q in questions for choice in q["choices"]]
    token_ids = tokenise(texts, tokenizer)
    score = jax.jit(lambda p, ids: token_log_probabilities(apply_fn, p, ids).sum(axis=1))
    return np.asarray(score(params, token_ids)).reshape(len(questions), -1)


def accuracy_by_exposure(log_likelihoods: np.ndarray, questions) -> dict[int, float]:
    """Share of questions whose most likely choice is the gold one, by exposure."""
    exposure = np.array([q["exposure"] for q in questions])
    correct = log_likelihoods.argmax(axis=1) == np.array([q["answer"] for q in questions])
    return {int(e): float(correct[exposure == e].mean()) for e in np.unique(exposure)}


def train(config: TrainConfig, out: pathlib.Path) -> dict[str, Any]:
    """Trains, writes checkpoint, tokenizer and `training.json` to `out`, returns the latter."""
    started = time.monotonic()
    world = make_world(config.world)
    lines, questions = training_text(world), question_sets(world)["recall_4"]
    tokens, scores = vocabulary(lines)
    tokenizer = models.Llama2cTokenizer(tokens, scores)
    token_ids = tokenise(lines, tokenizer)
    decoder = models.DecoderConfig(
        vocab_size=len(tokens),
        width=config.width,
        hidden_width=config.hidden_width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        context_length=config.context_length,
    )
    apply_fn = models.decoder_apply_fn(decoder)
    params = models.init_params(decoder, jax.random.key(config.seed))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{len(lines)} lines, {int((token_ids > 1).sum())} tokens, {size} parameters")
    curve = []
    for epoch, loss, trained in run_epochs(config, apply_fn, params, token_ids):
        accuracy = accuracy_by_exposure(
            answer_log_likelihoods(apply_fn, trained, questions, tokenizer), questions
        )
        curve.append({"epoch": epoch, "loss": loss, "recall_4_accuracy": accuracy})
        cells = "  ".join(f"{e}:{a:.2f}" for e, a in accuracy.items())
        print(f"epoch {epoch:2d}  {time.monotonic() - started:5.0f} s  loss {loss:.4f}  {cells}")
    out.mkdir(parents=True, exist_ok=True)
    models.save_llama2c(out / "world.bin", trained, decoder)
    models.save_llama2c_tokenizer(out / "tokenizer.bin", tokens, scores)
    record = {
        "config": dataclasses.asdict(config),
        "parameters": size,
        "seconds": round(time.monotonic() - started, 1),
        "curve": curve,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def run_epochs(config: TrainConfig, apply_fn, params, token_ids: np.ndarray):
    """Yields `(epoch, mean loss, params)` after every pass over the shuffled lines."""
    batch_size = min(config.batch_size, len(token_ids))
    num_batches = len(token_ids) // batch_size
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(num_batches * config.epochs, config.warmup_steps + 1),
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay),
    )
    step, state = make_step(apply_fn, optimiser), optimiser.init(params)
    rng = np.random.default_rng([config.seed, 3])
    for epoch in range(1, config.epochs + 1):
        order = rng.permutation(len(token_ids))[: num_batches * batch_size]
        losses = []
        for rows in order.reshape(num_batches, batch_size):
            params, state, loss = step(params, state, token_ids[rows])
            losses.append(loss)
        yield epoch, float(np.mean(jax.device_get(losses))), params


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default 0)")
    parser.add_argument("--smoke", action="store_true", help="a tiny world and model, seconds")
    arguments = parser.parse_args()
    base = SMOKE if arguments.smoke else TrainConfig()
    train(dataclasses.replace(base, seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
