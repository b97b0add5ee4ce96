"""A decoder in Flax NNX, handed out as pure functions of a nested dict."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from fishjax.trees import flatten_with_paths

from .attention import Context, Prefix, flatten_tokens
from .config import DecoderConfig
from .decoder_inputs import check_inputs, check_params, check_prefix
from .layer_plan import LayerPlan
from .layers import Block, add_norm, normal_weight, normalised
from .lora_layers import dropout_keys

__all__ = [
    "Cache",
    "Decoder",
    "decoder_apply_fn",
    "decoder_extend_fn",
    "empty_cache",
    "init_params",
]

Params = dict[str, Any]


class Cache(NamedTuple):
    """Keys and values of what was read.

    Attributes:
      keys: `[L, N, S, g, k]` in the compute dtype; S is the room.
      values: likewise.
      valid: `[N, S]` which entries are tokens.
      length: how many are used, padding included; the same for all rows.
    """

    keys: Array
    values: Array
    valid: Array
    length: Array


class Decoder(nnx.Module):
    """Embedding, `num_layers` blocks stacked along a leading axis, final norm, head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = normal_weight(rngs, (config.vocab_size, config.width), config.width)
        if config.positions == "learned":
            shape = (config.context_length, config.width)
            self.positions = normal_weight(rngs, shape, config.width)
        self.layers = _stacked_blocks(config, rngs)
        add_norm(self, "final_norm", config, config.width)
        if not config.tied:
            self.head = normal_weight(rngs, (config.width, config.vocab_size), config.width)

    def __call__(
        self,
        token_ids: Int[Array, "N T"],
        positions: Int[Array, "N A"] | None = None,
        mask: Bool[Array, "N T"] | None = None,
        dropout_key: Array | None = None,
        prefix: Int[Array, "N P"] | None = None,
        prefix_lengths: Int[Array, " N"] | None = None,
    ) -> Float[Array, "N S V"]:
        """Logits at every position, or only at `positions` (S = T or A)."""
        if prefix is not None and prefix_lengths is not None:
            places = prefix_lengths[:, None] + np.arange(token_ids.shape[1])
            hidden = self._continued(token_ids, places, prefix)
            return jnp.where(
                (places < self.config.context_length)[..., None], self._logits(hidden), jnp.nan
            )
        places = None if mask is None else jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        plan = LayerPlan(self.config, token_ids.shape[1], places)
        keys = dropout_keys(self.config, dropout_key, token_ids.shape[0])

        def layer(block: Block, hidden: Array, kind: Any, keys: Any) -> Array:
            common = Context(None, None, mask=mask, dropout_keys=keys)
            return block(hidden, plan.context(kind, common))[0]

        hidden = self._run_layers(layer, self._embedded(token_ids, places), plan.kinds, keys)
        if positions is not None:
            hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1, mode="fill")
        return self._logits(hidden)

    def extend(
        self, token_ids: Int[Array, "N T"], valid: Bool[Array, "N T"], cache: Cache
    ) -> tuple[Float[Array, "N V"], Cache]:
        """Logits after the last token, and the cache with these tokens."""
        room, length = cache.valid.shape[1], token_ids.shape[1]
        valid_keys = jax.lax.dynamic_update_slice_in_dim(cache.valid, valid, cache.length, 1)
        before = jnp.sum(cache.valid, axis=1, keepdims=True)
        places = jnp.maximum(before + jnp.cumsum(valid, axis=1) - 1, 0)
        at = cache.length + jnp.arange(length)
        allowed = valid_keys[:, None] & (jnp.arange(room) <= at[:, None])
        hidden = self._embedded(token_ids, places)
        plan = LayerPlan(self.config, room, places)
        block, stacked = nnx.split(self.layers)

        def step(hidden, layer):
            weights, kind, *past = layer
            own = Context(None, None, past=tuple(past), start=cache.length, allowed=allowed)
            context = plan.context(kind, own)
            return nnx.merge(block, weights)(hidden, context)

        layers = nnx.to_pure_dict(stacked), plan.kinds, cache.keys, cache.values
        hidden, past = jax.lax.scan(step, hidden, layers)
        keys, values = past  # type: ignore[misc]
        return self._logits(hidden[:, -1:])[:, 0], Cache(
            keys, values, valid_keys, cache.length + length
        )

    def _embedded(self, token_ids: Array, places: Array | None) -> Array:
        dtype = jnp.dtype(self.config.dtype)
        # Fill: an id outside the vocabulary gives NaN instead of another token's embedding.
        rows = self.embedding[...].at[token_ids].get(mode="fill", wrap_negative_indices=False)
        hidden = rows.astype(dtype)
        if self.config.embedding_scale is not None:
            hidden = hidden * jnp.asarray(self.config.embedding_scale, dtype)
        if self.config.positions == "learned":
            table = self.positions[...]
            # Clip: only padding is beyond the context, or what `_continued` gives no logits.
            at = (
                table[: token_ids.shape[1]] if places is None else table.at[places].get(mode="clip")
            )
            hidden = hidden + at.astype(dtype)
        return hidden

    def _continued(self, token_ids: Array, places: Array, prefix: Array) -> Array:
        """Hidden states of continuations that begin at `places[:, 0]`; a prefix sees no more."""
        read, length = prefix.shape[1], token_ids.shape[1]
        own, nowhere = np.arange(length), read + length + 1
        before = jnp.where(np.arange(read) < places[:, :1], np.arange(read), nowhere)
        after = jnp.where(np.tri(length, dtype=bool), own[:, None] - own, -1)
        gaps = jnp.concatenate(
            [
                places[:, :, None] - before[:, None],
                jnp.broadcast_to(after, (len(places), length, length)),
            ],
            axis=2,
        )
        first = LayerPlan(self.config, read, None)
        second = LayerPlan(self.config, read + length, places)

        def layer(block: Block, hidden: tuple[Array, Array], kind: Any, _: Any) -> Any:
            start, rest = hidden
            start, held = block(start, first.context(kind, Context(None, None)))
            common = Context(None, None, prefix=Prefix(*held, gaps))
            return start, block(rest, second.context(kind, common))[0]

        hidden = self._embedded(prefix, None), self._embedded(token_ids, places)
        return self._run_layers(layer, hidden, first.kinds, None)[1]

    def _run_layers(
        self, layer: Callable[..., Any], hidden: Any, kinds: dict[str, Any], keys: Array | None
    ) -> Any:
        """Scans `layer(block, hidden, kind, dropout keys) -> hidden` over the blocks."""
        block, stacked = nnx.split(self.layers)

        def step(hidden, of_layer):
            weights, kind, own = of_layer
            return layer(nnx.merge(block, weights), hidden, kind, own), None

        if self.config.remat:
            step = jax.checkpoint(step, prevent_cse=False)  # scan already prevents it
        hidden, _ = jax.lax.scan(step, hidden, (nnx.to_pure_dict(stacked), kinds, keys))
        return hidden

    def _logits(self, hidden: Float[Array, "N S d"]) -> Float[Array, "N S V"]:
        hidden = normalised(self, "final_norm", self.config, hidden)
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        tokens = flatten_tokens(hidden)
        if self.config.tied:
            weight = self.embedding[...].astype(hidden.dtype)
            logits = jnp.einsum("md,vd->mv", tokens, weight, preferred_element_type=wide)
        else:
            weight = self.head[...].astype(hidden.dtype)
            logits = jnp.einsum("md,dv->mv", tokens, weight, preferred_element_type=wide)
        if self.config.logit_cap is not None:
            logits = self.config.logit_cap * jnp.tanh(logits / self.config.logit_cap)
        return logits.reshape(*hidden.shape[:2], -1)


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
      head is untied, `head` [d, V]; where the config says so also `positions` [T, d], biases
      (`..._bias`), `layers/attention/{query_norm, key_norm}` [L, k] and
      `layers/{post_attention_norm, post_mlp_norm}` [L, d]; and with `lora` the adapters.
    """
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


def decoder_apply_fn(
    config: DecoderConfig,
) -> Callable[..., Float[Array, "N S V"]]:
    """Builds a pure `apply_fn(params, token_ids, positions, mask, dropout_key, ...)`.

    It returns logits; all but the first two arguments may be left out.

    `token_ids` is `[N, T]` with T at most `context_length`; logits are `[N, T, V]`. With
    `positions` `[N, A]` the hidden states are gathered there before the head, so logits are
    `[N, A, V]`: row a is the distribution of the token after position `positions[n, a]`.
    Attention is causal, so padding on the right changes nothing. For padding elsewhere pass
    `mask` `[N, T]`, true for tokens: what is false is never attended to and does not count as a
    position; logits there mean nothing. An id outside the vocabulary makes its example's logits
    NaN, a position outside the sequence its own row: never some other token's logits.

    With `prefix` `[N, P]` and `prefix_lengths` `[N]` the rows continue sequences: the first
    `prefix_lengths[n]` tokens of `prefix[n]`, then `token_ids[n]`. Logits are those of the
    continuation, NaN beyond the context. What depends on the prefix alone is computed from the
    prefix alone, so under a `vmap` over several continuations it is computed once. Without
    `positions`, `mask` and dropout.

    With a `lora` in the config, parameters are weights and adapters joined (`fishjax.models.lora`),
    and a `dropout_key` makes its dropout happen: one key, or `[N]` keys, one an example, so that an
    example's mask depends on nothing but its own key. Without a key there is none.

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
    graphdef, expected = _structure(config)

    def apply_fn(
        params, token_ids, positions=None, mask=None, dropout_key=None, *,
        prefix=None, prefix_lengths=None,
    ):  # fmt: skip
        check_params(params, expected)
        check_inputs(token_ids, config, positions=positions, mask=mask)
        if prefix is not None or prefix_lengths is not None:
            others = {"positions": positions, "mask": mask, "dropout_key": dropout_key}
            check_prefix(token_ids, prefix, prefix_lengths, config, others)
        decoder = nnx.merge(graphdef, jax.tree.map(jnp.asarray, params))
        positions, mask, prefix, prefix_lengths = (
            None if x is None else jnp.asarray(x) for x in (positions, mask, prefix, prefix_lengths)
        )
        return decoder(jnp.asarray(token_ids), positions, mask, dropout_key, prefix, prefix_lengths)

    return apply_fn


def decoder_extend_fn(
    config: DecoderConfig,
) -> Callable[..., tuple[Float[Array, "N V"], Cache]]:
    """Builds `extend(params, token_ids, valid, cache) -> (logits [N, V], cache)` for generation.

    Reads T more tokens of every row (`valid` `[N, T]` is false for padding, which belongs on the
    left) and gives the logits after the last: those of `decoder_apply_fn` on everything read so
    far. Start with `empty_cache`; the room of the cache bounds what can be read.

    Raises:
      ValueError: by the function, as `decoder_apply_fn`.
    """
    graphdef, expected = _structure(config)

    def extend(params, token_ids, valid, cache):
        check_params(params, expected)
        check_inputs(token_ids, config, mask=valid)
        decoder = nnx.merge(graphdef, jax.tree.map(jnp.asarray, params))
        return decoder.extend(jnp.asarray(token_ids), jnp.asarray(valid), cache)

    return extend


def empty_cache(config: DecoderConfig, num_rows: int, room: int) -> Cache:
    """A cache for `num_rows` sequences of at most `room` tokens, padding included.

    Padding takes room but no position, so there may be more room than the context is long.

    Raises:
      ValueError: more room than twice the context.
    """
    if not 0 < room <= 2 * config.context_length:
        raise ValueError(
            f"room for {room} tokens: expected 1 to twice the context of {config.context_length}"
        )
    shape = (config.num_layers, num_rows, room, config.num_kv_heads, config.head_width)
    keys, values = (jnp.zeros(shape, config.dtype) for _ in range(2))
    return Cache(keys, values, jnp.zeros((num_rows, room), bool), jnp.zeros((), jnp.int32))


def _structure(config: DecoderConfig) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The module without parameters, and the shape of every path."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    paths, leaves, _ = flatten_with_paths(nnx.to_pure_dict(state))
    return graphdef, {path: leaf.shape for path, leaf in zip(paths, leaves, strict=True)}
