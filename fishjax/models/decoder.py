"""A Llama-family decoder in Flax NNX, handed out as a pure function of a nested dict."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from fishjax.trees import flatten_with_paths

from .config import DecoderConfig
from .layers import Block, flatten_tokens, normal_weight, rms_norm

__all__ = ["Decoder", "decoder_apply_fn", "init_params"]

Params = dict[str, Any]


class Decoder(nnx.Module):
    """Embedding, `num_layers` blocks stacked along a leading axis, final norm, head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = normal_weight(rngs, (config.vocab_size, config.width), config.width)
        self.layers = _stacked_blocks(config, rngs)
        self.final_norm = nnx.Param(jnp.ones(config.width))
        if not config.tied:
            self.head = normal_weight(rngs, (config.width, config.vocab_size), config.width)

    def __call__(
        self,
        token_ids: Int[Array, "N T"],
        positions: Int[Array, "N A"] | None = None,
    ) -> Float[Array, "N S V"]:
        """Logits at every position, or only at `positions` (S = T or A)."""
        dtype = jnp.dtype(self.config.dtype)
        # Fill: an id outside the vocabulary gives NaN instead of another token's embedding.
        rows = self.embedding[...].at[token_ids].get(mode="fill", wrap_negative_indices=False)
        hidden = self._run_layers(rows.astype(dtype))
        if positions is not None:
            hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1, mode="fill")
        hidden = rms_norm(hidden, self.final_norm[...], self.config.norm_epsilon)
        wide = jnp.promote_types(dtype, jnp.float32)
        tokens = flatten_tokens(hidden)
        if self.config.tied:
            weight = self.embedding[...].astype(dtype)
            logits = jnp.einsum("md,vd->mv", tokens, weight, preferred_element_type=wide)
        else:
            weight = self.head[...].astype(dtype)
            logits = jnp.einsum("md,dv->mv", tokens, weight, preferred_element_type=wide)
        return logits.reshape(*hidden.shape[:2], -1)

    def _run_layers(self, hidden: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
        block, stacked = nnx.split(self.layers)

        def step(hidden, weights):
            return nnx.merge(block, weights)(hidden), None

        if self.config.remat:
            step = jax.checkpoint(step, prevent_cse=False)  # scan already prevents it
        hidden, _ = jax.lax.scan(step, hidden, nnx.to_pure_dict(stacked))
        return hidden


def _stacked_blocks(config: DecoderConfig, rngs: nnx.Rngs) -> Block:
    """One Block whose parameters carry a leading layer axis."""

    def one(key):
        return nnx.to_pure_dict(nnx.state(Block(config, rngs=nnx.Rngs(key))))

    template = nnx.eval_shape(lambda: Block(config, rngs=nnx.Rngs(0)))
    stacked = jax.vmap(one)(jax.random.split(rngs.params(), config.num_layers))
    return nnx.merge(nnx.graphdef(template), stacked)


def init_params(config: DecoderConfig, key: Key[Array, ""] | Array) -> Params:
    """Random float32 parameters: normal with variance 1 / fan-in, norms at one.

    Returns:
      A plain nested dict. Everything under `layers` has a leading axis of `num_layers`:
      `embedding` [V, d], `layers/attention/{query [L, d, h, k], key, value [L, d, g, k],
      output [L, h, k, d]}`, `layers/mlp/{gate, up [L, d, f], down [L, f, d]}`,
      `layers/{attention_norm, mlp_norm}` [L, d], `final_norm` [d] and, if the
      head is untied, `head` [d, V].
    """
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


def decoder_apply_fn(
    config: DecoderConfig,
) -> Callable[..., Float[Array, "N S V"]]:
    """Builds `apply_fn(params, token_ids, positions=None) -> logits`, a pure function.

    `token_ids` is `[N, T]` with T at most `context_length`; logits are `[N, T, V]`. With
    `positions` `[N, A]` the hidden states are gathered there before the head, so logits are
    `[N, A, V]`: row a is the distribution of the token after position `positions[n, a]`.
    Attention is causal, so padding on the right changes nothing. An id outside the vocabulary
    makes its example's logits NaN, a position outside the sequence its own row: never some
    other token's logits.

    Args:
      config: the architecture; `remat` and `dtype` change cost, not meaning.

    Returns:
      The apply function. It raises ValueError when the sequence is longer than the context,
      the ids are not integers, or `params` does not fit `config` (naming the path).

    Example:
      >>> import jax
      >>> config = DecoderConfig(
      ...     vocab_size=8, width=8, hidden_width=16, num_layers=2, num_heads=2,
      ...     num_kv_heads=1, context_length=16)
      >>> params = init_params(config, jax.random.key(0))
      >>> apply_fn = decoder_apply_fn(config)
      >>> apply_fn(params, jax.numpy.array([[1, 5, 2]])).shape
      (1, 3, 8)
    """
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    expected_paths, leaves, _ = flatten_with_paths(nnx.to_pure_dict(state))
    expected = {path: leaf.shape for path, leaf in zip(expected_paths, leaves, strict=True)}

    def apply_fn(params, token_ids, positions=None):
        _check_params(params, expected)
        _check_inputs(token_ids, positions, config)
        decoder = nnx.merge(graphdef, jax.tree.map(jnp.asarray, params))
        return decoder(
            jnp.asarray(token_ids), None if positions is None else jnp.asarray(positions)
        )

    return apply_fn


def _check_params(params: Params, expected: dict[str, tuple[int, ...]]) -> None:
    paths, leaves, _ = flatten_with_paths(params)
    shapes = {path: jnp.shape(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    for path in expected.keys() | shapes.keys():
        if expected.get(path) != shapes.get(path):
            raise ValueError(
                f"parameter {path!r} has shape {shapes.get(path, 'missing')}: expected "
                f"{expected.get(path, 'no such parameter')}; pass params of the same config"
            )


def _check_inputs(token_ids: Any, positions: Any, config: DecoderConfig) -> None:
    if jnp.ndim(token_ids) != 2 or not jnp.issubdtype(jnp.result_type(token_ids), jnp.integer):
        raise ValueError(
            f"token_ids has shape {jnp.shape(token_ids)} and dtype {jnp.result_type(token_ids)}: "
            "expected integers of shape [N, T]"
        )
    length = jnp.shape(token_ids)[1]
    if length > config.context_length:
        raise ValueError(
            f"sequence of {length} tokens is longer than the context of "
            f"{config.context_length}: truncate it"
        )
    if positions is not None and jnp.ndim(positions) != 2:
        raise ValueError(f"positions has shape {jnp.shape(positions)}: expected [N, A]")
    if jax.dtypes.canonicalize_dtype(np.dtype(jnp.dtype(config.dtype))) != jnp.dtype(config.dtype):
        raise ValueError(f"dtype {config.dtype} needs jax_enable_x64: enable it or use float32")
