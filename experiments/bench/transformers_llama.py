"""The same loop with the library that most users have: `LlamaForCausalLM` of transformers.

As such loops are written: `model(ids).logits` of every position, one `backward()` an answer. The
attention is the library's default, fused. `torch_llama` is the leaner loop: the head at the
answer's positions only, no modules.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.bench import turns
from experiments.bench.torch_llama import log_squared_norms

_NAMES = {
    "attention_norm": "input_layernorm",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp/gate": "mlp.gate_proj",
    "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
}


def program(folder: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The loop over the questions of `folder` (`experiments.bench.throughput.export`)."""
    torch.set_num_threads(turns.cores())
    job = json.loads((pathlib.Path(folder) / "questions.json").read_text())
    with np.load(pathlib.Path(folder) / "weights.npz") as arrays:
        model = _model({name: arrays[name] for name in arrays.files}, job["shape"])
    questions = [
        [(torch.tensor([a["read"]]), torch.tensor(a["targets"])) for a in answers]
        for answers in job["questions"]
    ]

    def run() -> list[float]:
        numbers: list[float] = []
        for answers in questions:
            values, gradients = [], []
            for ids, targets in answers:
                model.zero_grad()
                logits = model(ids, use_cache=False).logits[0, -len(targets) :]
                value = -functional.cross_entropy(logits, targets, reduction="sum")
                value.backward()
                values.append(value.detach())
                gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            numbers += log_squared_norms(torch.stack(values), torch.stack(gradients))
        return numbers

    return run, {"threads": torch.get_num_threads()}


def _model(weights: dict[str, np.ndarray], shape: dict[str, Any]) -> LlamaForCausalLM:
    vocab_size, width = weights["embedding"].shape
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=weights["layers/mlp/gate"].shape[-1],
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
            num_key_value_heads=shape["num_kv_heads"],
            head_dim=shape["head_width"],
            rms_norm_eps=shape["norm_epsilon"],
            tie_word_embeddings="head" not in weights,
        )
    )
    state = {"model.embed_tokens.weight": weights["embedding"]}
    state["model.norm.weight"] = weights["final_norm"]
    state["lm_head.weight"] = weights["head"].T if "head" in weights else weights["embedding"]
    for name, theirs in _NAMES.items():
        for layer, weight in enumerate(weights[f"layers/{name}"]):
            state[f"model.layers.{layer}.{theirs}.weight"] = _matrix(name, weight)
    model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()})
    return model


def _matrix(name: str, weight: np.ndarray) -> np.ndarray:
    """`[out, in]`, or a norm's scales; pairs (2i, 2i + 1) of a head become (i, i + half)."""
    if name in ("attention/query", "attention/key"):
        weight = np.concatenate((weight[..., ::2], weight[..., 1::2]), axis=-1)
    if name == "attention/output":
        return weight.reshape(-1, weight.shape[-1]).T
    return weight.reshape(len(weight), -1).T if weight.ndim > 1 else weight
