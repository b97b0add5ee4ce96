"""The Llama of llama2.c in PyTorch, and the plain loop of backward passes over answers.

The loop is what a PyTorch user writes: one answer at a time through `torch.autograd.grad`, the
gradients of a question's answers kept for their Gram matrix. Fused attention, the head applied to
the answer's positions only, embedding gradients dense (tied weights allow no sparse ones).
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from experiments.bench import turns

Weights = dict[str, Tensor]


def forward(weights: Weights, shape: dict[str, Any], ids: Tensor, num_targets: int) -> Tensor:
    """Logits `[A, V]` before each of the last A targets; `ids [T]` is what the model reads."""
    heads, groups, size = shape["num_heads"], shape["num_kv_heads"], shape["head_width"]
    hidden = weights["embedding"][ids]
    cos, sin = weights["cos"][: len(ids), None], weights["sin"][: len(ids), None]
    for layer in range(shape["num_layers"]):
        own = {name: weights[f"layers/{name}"][layer] for name in shape["layer_weights"]}
        read = _norm(hidden, own["attention_norm"], shape["norm_epsilon"])
        q, k, v = (
            (read @ own[f"attention/{name}"].flatten(1)).view(len(ids), count, size)
            for name, count in (("query", heads), ("key", groups), ("value", groups))
        )
        q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed[0].transpose(0, 1).reshape(len(ids), -1)
        hidden = hidden + mixed @ own["attention/output"].flatten(0, 1)
        read = _norm(hidden, own["mlp_norm"], shape["norm_epsilon"])
        gate = functional.silu(read @ own["mlp/gate"])
        hidden = hidden + (gate * (read @ own["mlp/up"])) @ own["mlp/down"]
    last = _norm(hidden[-num_targets:], weights["final_norm"], shape["norm_epsilon"])
    return last @ (weights["embedding"].T if "head" not in weights else weights["head"])


def _norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * scale


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs are (2i, 2i + 1)."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def program(folder: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The loop over the questions of `folder` (`experiments.bench.throughput.export`).

    `reference` of what is said about it are the numbers in float64.
    """
    torch.set_num_threads(turns.cores())
    job = json.loads((pathlib.Path(folder) / "questions.json").read_text())
    with np.load(pathlib.Path(folder) / "weights.npz") as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    reference = _scores({name: w.double() for name, w in weights.items()}, job)
    about = {"threads": torch.get_num_threads(), "reference": reference}
    return functools.partial(_scores, weights, job), about


def _scores(weights: Weights, job: dict[str, Any]) -> list[float]:
    trained = [w.requires_grad_() for name, w in weights.items() if name not in ("cos", "sin")]
    numbers: list[float] = []
    for answers in job["questions"]:
        values, gradients = [], []
        for answer in answers:
            ids, targets = torch.tensor(answer["read"]), torch.tensor(answer["targets"])
            logits = forward(weights, job["shape"], ids, len(targets))
            value = -functional.cross_entropy(logits, targets, reduction="sum")
            found = torch.autograd.grad(value, trained)
            values.append(value.detach())
            gradients.append(torch.cat([g.flatten() for g in found]))
        numbers += log_squared_norms(torch.stack(values), torch.stack(gradients))
    return numbers


def log_squared_norms(values: Tensor, gradients: Tensor) -> list[float]:
    """Log squared norms of the gradients of the answers' probabilities."""
    gram = (gradients @ gradients.T).double()
    p = values.double().softmax(0)
    centred = -p.repeat(len(p), 1).fill_diagonal_(0)
    centred -= centred.sum(1).diag()  # 1 - p_k as the sum of the others: p_k can be 1 - 1e-16
    return (2 * p.log() + ((centred @ gram) * centred).sum(1).log()).tolist()
