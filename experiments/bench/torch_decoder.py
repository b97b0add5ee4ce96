"""The GPT of `experiments.bench.decoder` in PyTorch, and what PyTorch offers for norms.

Same function, same weights. Only `nn.Linear`, `nn.Embedding` and `nn.LayerNorm` hold parameters,
so that Opacus supports every layer. Query, key and value are one fused linear layer: the squared
norm of its gradient is the sum of theirs, and it is faster.

Each program is at the settings that took the least CPU time when they were chosen:

- loops: one example at a time through `torch.autograd.grad`, sparse embedding gradients, fused
  attention (`scaled_dot_product_attention`); compiled: one `torch.compile` of gradient and norm;
- vmap(grad): explicit attention (vmap has no batching rule for the fused one and falls back to a
  loop); norms are taken after vmap, not inside; all examples at once and in chunks of 4;
- Opacus: as its training loop does it (`backward`, which also forms the summed gradient), and
  a variant of ours that Opacus does not offer, kinder to it: the backward pass asks only for
  what reaches the embeddings, so that no summed gradient of a weight is formed except theirs.
  `torch.compile` around its hooks took longer and is left out.
"""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.bench import turns

Arrays = dict[str, np.ndarray]
CHUNK = 4


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of `[N, H, T, K]` in one kernel."""
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in plain operations."""
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    return scores.masked_fill(later, -1e30).softmax(-1) @ v


class Block(nn.Module):
    """Pre-norm attention and GELU MLP."""

    def __init__(self, width: int, heads: int, attention: Callable[..., Tensor]):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """`[N, T, d] -> [N, T, d]`."""
        n, t, d = h.shape
        fused = self.query_key_value(self.attention_norm(h)).split(d, dim=-1)
        q, k, v = (x.view(n, t, self.heads, -1).transpose(1, 2) for x in fused)
        h = h + self.output(self.attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return h + self.down(functional.gelu(self.up(self.mlp_norm(h)), approximate="tanh"))


class Decoder(nn.Module):
    """`ids [N, T] -> [N]`: log-likelihood of each sequence."""

    def __init__(self, arrays: Arrays, attention: Callable[..., Tensor], sparse: bool = False):
        super().__init__()
        (vocabulary, width), length = arrays["embedding"].shape, len(arrays["positions"])
        heads = arrays["layers.0.query"].shape[1]
        depth = sum(name.endswith(".query") for name in arrays)
        self.embedding = nn.Embedding(vocabulary, width, sparse=sparse)
        self.positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList(Block(width, heads, attention) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.load_state_dict(_state(arrays, depth, width))

    def forward(self, ids: Tensor) -> Tensor:
        """Log-likelihoods, every token after the first given those before it."""
        places = torch.arange(ids.shape[1]).repeat(len(ids), 1)
        h = self.embedding(ids) + self.positions(places)
        for layer in self.layers:
            h = layer(h)
        logits = self.head(self.final_norm(h)[:, :-1])
        return -functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").sum(
            1
        )


def _state(arrays: Arrays, depth: int, width: int) -> dict[str, Tensor]:
    """Our arrays under PyTorch's names: linear weights are transposed, heads flattened."""
    state = {
        "embedding.weight": arrays["embedding"],
        "positions.weight": arrays["positions"],
        "final_norm.weight": arrays["final_norm"],
        "final_norm.bias": arrays["final_shift"],
        "head.weight": arrays["head"].T,
    }
    for i in range(depth):
        at = f"layers.{i}."  # both sides' prefix
        fused = [arrays[at + name].reshape(width, -1).T for name in ("query", "key", "value")]
        biases = [arrays[f"{at}{name}_bias"].ravel() for name in ("query", "key", "value")]
        state[at + "query_key_value.weight"] = np.concatenate(fused)
        state[at + "query_key_value.bias"] = np.concatenate(biases)
        state[at + "output.weight"] = arrays[at + "output"].reshape(-1, width).T
        state[at + "output.bias"] = arrays[at + "output_bias"]
        for name in ("up", "down"):
            state[f"{at}{name}.weight"] = arrays[at + name].T
            state[f"{at}{name}.bias"] = arrays[f"{at}{name}_bias"]
        for name in ("attention", "mlp"):
            state[f"{at}{name}_norm.weight"] = arrays[f"{at}{name}_norm"]
            state[f"{at}{name}_norm.bias"] = arrays[f"{at}{name}_shift"]
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}


def loop(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """One forward and one backward pass for each example."""
    model = Decoder(arrays, fused_attention, sparse=True)
    params = list(model.parameters())

    def norm(row: Tensor) -> Tensor:
        grads = torch.autograd.grad(model(row).sum(), params)
        dense = [g.coalesce().values() if g.is_sparse else g for g in grads]
        return torch.stack(torch._foreach_norm(dense)).square().sum()

    return lambda: torch.stack([norm(row) for row in ids.split(1)])


def _functional(arrays: Arrays) -> tuple[dict[str, Tensor], Callable[..., Any]]:
    model = Decoder(arrays, explicit_attention)
    params = {name: p.detach() for name, p in model.named_parameters()}
    single = lambda params, row: torch.func.functional_call(model, params, (row[None],))[0]  # noqa: E731
    return params, torch.func.grad(single)


def loop_compiled(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """The loop with gradient and norm of one example compiled together."""
    params, grad = _functional(arrays)

    def norm(params: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.stack([g.square().sum() for g in grad(params, row).values()]).sum()

    compiled = torch.compile(norm, dynamic=False)
    return lambda: torch.stack([compiled(params, row) for row in ids])


def _vmap(arrays: Arrays) -> tuple[dict[str, Tensor], Callable[..., Tensor]]:
    params, grad = _functional(arrays)
    batched = torch.func.vmap(grad, (None, 0))

    def norms(params: dict[str, Tensor], ids: Tensor) -> Tensor:
        grads = [g.flatten(1) for g in batched(params, ids).values()]
        return torch.stack([torch.linalg.vector_norm(g, dim=1) for g in grads]).square().sum(0)

    return params, norms


def vmap_grad(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """All per-example gradients at once."""
    params, norms = _vmap(arrays)
    return lambda: norms(params, ids)


def vmap_grad_chunks(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """The gradients of a few examples at a time."""
    params, norms = _vmap(arrays)
    return lambda: torch.cat([norms(params, part) for part in ids.split(CHUNK)])


def vmap_grad_compiled(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """All per-example gradients at once, compiled with their norms."""
    params, norms = _vmap(arrays)
    compiled = torch.compile(norms, dynamic=False)
    return lambda: compiled(params, ids)


def vmap_grad_compiled_chunks(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """The gradients of a few examples at a time, compiled with their norms."""
    params, norms = _vmap(arrays)
    compiled = torch.compile(norms, dynamic=False)
    return lambda: torch.cat([compiled(params, part) for part in ids.split(CHUNK)])


def _opacus(arrays: Arrays) -> tuple[Decoder, Any]:
    ghost = importlib.import_module("opacus.grad_sample").GradSampleModuleFastGradientClipping
    model = Decoder(arrays, fused_attention)
    # "sum": the norms are of each example's log-likelihood, not of its share of a mean
    return model, ghost(model, loss_reduction="sum", use_ghost_clipping=True)


def opacus(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """Ghost norms: one forward, one backward with the summed gradients, the hooks' norms."""
    model, ghost = _opacus(arrays)

    def run() -> Tensor:
        ghost(ids).sum().backward()
        model.zero_grad(set_to_none=True)
        return ghost.get_norm_sample().square()

    return run


def opacus_lean(arrays: Arrays, ids: Tensor) -> Callable[[], Tensor]:
    """Ghost norms whose backward pass forms no summed gradient but the embeddings'."""
    model, ghost = _opacus(arrays)
    reached = [model.embedding.weight, model.positions.weight]

    def run() -> Tensor:
        torch.autograd.grad(ghost(ids).sum(), reached)
        return ghost.get_norm_sample().square()

    return run


PROGRAMS = {
    "loop": loop,
    "loop, compiled": loop_compiled,
    "vmap(grad)": vmap_grad,
    "vmap(grad), chunks": vmap_grad_chunks,
    "vmap(grad), compiled": vmap_grad_compiled,
    "vmap(grad), compiled, chunks": vmap_grad_compiled_chunks,
    "Opacus": opacus,
    "Opacus, lean backward": opacus_lean,
}


def program(name: str, weights: str) -> tuple[Callable[[], Tensor], dict[str, Any]]:
    """One of `PROGRAMS` on exported weights, for `turns.Worker`.

    Args:
      name: its key in `PROGRAMS`.
      weights: npz file with every parameter by path, and `ids`.

    Returns:
      The program, and its thread counts.
    """
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    torch.set_num_threads(turns.cores())
    with np.load(weights) as file:
        arrays = {key: file[key] for key in file}
    ids = torch.from_numpy(arrays.pop("ids").astype(np.int64))
    return PROGRAMS[name](arrays, ids), {"threads": torch.get_num_threads()}
