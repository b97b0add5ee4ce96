"""Continuations of prompts: greedy or sampled, batched, with a cache of keys and values."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from fishjax.compilation import compiler_options

from .checkpoint import LanguageModel
from .decoder import Cache, decoder_extend_fn, empty_cache

__all__ = ["Generated", "Sampling", "end_ids", "generate"]

_BUCKET = 16  # prompts are padded to a multiple: few shapes compile


class Sampling(NamedTuple):
    """How the next token is chosen and when to stop.

    Attributes:
      max_tokens: most tokens of a continuation.
      temperature: logits are divided by it; 0 takes the most likely token.
      top_p: only the most likely tokens that together have this probability, in (0, 1].
      stop: a continuation ends before the first of these texts.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises ValueError where a number is out of range or a stop text is empty."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}: expected at least 1")
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}: expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: expected a number in (0, 1]")
        if "" in self.stop:
            raise ValueError("a stop text is empty: every continuation would be")


class Generated(NamedTuple):
    """One continuation.

    Attributes:
      text: decoded, without the stop text.
      token_ids: all that were chosen, those of the stop text and the end of sequence included.
      log_likelihoods: of each under the model (temperature 1, no top-p), in nats.
      ended: "eos", "stop", "length", or "not finite" where a logit was NaN or infinite.
    """

    text: str
    token_ids: tuple[int, ...]
    log_likelihoods: tuple[float, ...]
    ended: Literal["eos", "stop", "length", "not finite"]


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = Sampling(),  # noqa: B008 (a tuple)
    *,
    keys: Key[Array, " N"] | None = None,
    eos_ids: Sequence[int] = (),
    mesh: Mesh | None = None,
) -> list[Generated]:
    """Continues every prompt.

    A row's draws depend on its own key alone, its logits are those of `model.apply_fn` on prompt
    and continuation, and it ends where its own context does, so batches can be cut at will.

    Args:
      model: from `load`.
      prompts: token ids, at least one each; lengths may differ.
      sampling: how tokens are chosen.
      keys: `[N]`, one a prompt, for a temperature above 0; `jax.random.split` makes them.
      eos_ids: ids that end a sequence; unless told those of `generation_config.json`, where the
        model has none those of `config.json` and the tokenizer's.
      mesh: of devices with the automatic axis "data", over which rows are spread; parameters
        stay where `load` put them.

    Returns:
      As many continuations, in the same order.

    Raises:
      ValueError: an empty prompt, one with no room for a continuation in the context, a
        temperature without as many keys as prompts, or a mesh without the axis.
    """
    sampling.check()
    if not prompts:
        return []
    if sampling.temperature > 0 and (keys is None or keys.shape != (len(prompts),)):
        raise ValueError(
            f"temperature {sampling.temperature} draws: expected {len(prompts)} keys, one a "
            "prompt, as jax.random.split makes them"
        )
    if mesh is not None and "data" not in mesh.shape:
        raise ValueError(f"the mesh has the axes {mesh.axis_names}: expected one called data")
    longest, context = max(map(len, prompts)), model.config.context_length
    if min(map(len, prompts)) < 1:
        raise ValueError("a prompt is empty: expected at least one token, as the begin of sequence")
    if longest >= context:
        raise ValueError(
            f"a prompt has {longest} tokens and the context {context}: shorten it, so that there "
            "is room for a continuation"
        )
    padded = min(-(-longest // _BUCKET) * _BUCKET, max(longest, context - sampling.max_tokens))
    limits = [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]
    if keys is None:
        keys = jax.random.split(jax.random.key(0), len(prompts))  # greedy: never drawn from
    filled, put = _filled(len(prompts), mesh), _spread(mesh)
    keys = put(keys[filled])
    extend = _programs(model.config, mesh)
    choose = functools.partial(
        _choose, temperature=float(sampling.temperature), top_p=float(sampling.top_p)
    )
    ids, valid = map(put, _left_padded([prompts[i] for i in filled], padded))
    cache = empty_cache(model.config, len(filled), padded + max(limits))
    logits, cache = extend(model.params, ids, valid, _spread_cache(cache, model, mesh))
    ends = frozenset(eos_ids) or end_ids(model)
    rows = [_Row(model.tokenizer, sampling.stop, ends, limit) for limit in limits]
    for step in range(max(limits)):
        chosen, log_likelihoods, finite = jax.device_get(choose(logits, keys, step))
        # rows that only fill up the mesh come last and are dropped here
        for row, token, value, good in zip(rows, chosen, log_likelihoods, finite, strict=False):
            row.take(int(token), float(value), bool(good))
        if all(row.ended for row in rows):
            break
        next_ids = put(chosen[:, None])
        logits, cache = extend(model.params, next_ids, put(np.ones(next_ids.shape, bool)), cache)
    return [row.finished() for row in rows]


@functools.lru_cache(maxsize=8)
def _programs(config: Any, mesh: Mesh | None) -> Callable[..., tuple[Array, Cache]]:
    """The compiled extension of a cache, which is updated in place."""
    extend, options = decoder_extend_fn(config), compiler_options()
    if mesh is None:
        return jax.jit(extend, donate_argnums=3, compiler_options=options)
    out = NamedSharding(mesh, P("data")), _cache_sharding(config.num_kv_heads, mesh)
    return jax.jit(extend, donate_argnums=3, out_shardings=out, compiler_options=options)


def _filled(count: int, mesh: Mesh | None) -> np.ndarray:
    """Indices of rows, the last one repeated until the devices divide them."""
    parts = 1 if mesh is None else mesh.shape["data"]
    return np.minimum(np.arange(-(-count // parts) * parts), count - 1)


def _spread(mesh: Mesh | None) -> Callable[[Any], Array]:
    """Puts an array of rows on the devices."""
    if mesh is None:
        return jnp.asarray
    sharding = NamedSharding(mesh, P("data"))
    return lambda rows: jax.device_put(rows, sharding)


def _spread_cache(cache: Cache, model: LanguageModel, mesh: Mesh | None) -> Cache:
    if mesh is None:
        return cache
    return jax.device_put(cache, _cache_sharding(model.config.num_kv_heads, mesh))


def _cache_sharding(heads: int, mesh: Mesh) -> Any:
    """Rows over the data axis, heads over the model axis where it divides them."""
    split = "model" if heads % mesh.shape.get("model", heads + 1) == 0 else None
    layers = NamedSharding(mesh, P(None, "data", None, split))
    parts: Any = layers, layers, NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    return Cache(*parts)


def end_ids(model: LanguageModel) -> frozenset[int]:
    """What ends a sequence of this model.

    The ids of `generation_config.json`, often several, as the end of a turn in a chat; without
    them the tokenizer's, and those of `config.json`, which may list several as well.
    """
    if model.eos_ids:
        return frozenset(model.eos_ids)
    stated = (model.source or {}).get("eos_token_id")
    stated = stated if isinstance(stated, list) else [stated]
    return frozenset([model.tokenizer.eos_id, *(i for i in stated if type(i) is int)])


@functools.partial(jax.jit, static_argnames=("temperature", "top_p"))
def _choose(
    logits: Array, keys: Array, step: Array, *, temperature: float, top_p: float
) -> tuple[Array, Array, Array]:
    """`(token [N], its log-likelihood [N], whether all logits are finite [N])`."""
    log_probs = jax.nn.log_softmax(logits)
    if temperature == 0:
        chosen = jnp.argmax(logits, axis=-1)
    else:
        scaled = _nucleus(logits / temperature, top_p)
        draw = lambda key, row: jax.random.categorical(jax.random.fold_in(key, step), row)  # noqa: E731
        chosen = jax.vmap(draw)(keys, scaled)
    taken = jnp.take_along_axis(log_probs, chosen[:, None], axis=-1)[:, 0]
    return chosen, taken, jnp.all(jnp.isfinite(logits), axis=-1)


def _nucleus(logits: Array, top_p: float) -> Array:
    """Minus infinity outside the smallest set of likeliest tokens of probability `top_p`."""
    if top_p == 1:
        return logits
    order = jnp.argsort(-logits, axis=-1)
    probs = jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = (
        jnp.zeros(logits.shape, bool)
        .at[jnp.arange(len(logits))[:, None], order]
        .set(before < top_p)
    )
    return jnp.where(kept, logits, -jnp.inf)


def _left_padded(prompts: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((len(prompts), length), np.int32)
    valid = np.zeros(ids.shape, bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = prompt
        valid[row, length - len(prompt) :] = True
    return ids, valid


class _Row:
    """One continuation as it grows."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], eos_ids: Any, limit: int):
        self._tokenizer, self._stop, self._eos_ids = tokenizer, stop, eos_ids
        self._limit = limit
        self._ids: list[int] = []
        self._log_likelihoods: list[float] = []
        self._text: str | None = None
        self.ended: Any = None

    def take(self, token: int, log_likelihood: float, finite: bool) -> None:
        """The next token, unless the row has ended."""
        if self.ended:
            return
        if not finite:
            self.ended = "not finite"
            return
        self._ids.append(token)
        self._log_likelihoods.append(log_likelihood)
        if token in self._eos_ids:
            self.ended = "eos"
            return
        if self._stop:
            text = self._decoded(self._ids)
            places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
            if places:
                self.ended, self._text = "stop", text[: min(places)]
                return
        if len(self._ids) == self._limit:
            self.ended = "length"

    def finished(self) -> Generated:
        """The continuation."""
        ids = self._ids[:-1] if self.ended == "eos" else self._ids
        text = self._decoded(ids) if self._text is None else self._text
        return Generated(text, tuple(self._ids), tuple(self._log_likelihoods), self.ended)

    def _decoded(self, ids: Sequence[int]) -> str:
        """Text; ids that only fill up the model's vocabulary have none."""
        return self._tokenizer.decode([i for i in ids if i < self._tokenizer.vocab_size])
