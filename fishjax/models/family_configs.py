"""How each family on the Hugging Face hub spells its config."""

import math
from typing import Any

from .config import DecoderConfig
from .config_keys import ConfigKeys
from .rotary_keys import read_rotary
from .window_keys import read_window, read_windows

__all__ = ["gemma2", "gemma3", "gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# defaults of transformers' classes, which a file that lacks the key means
_LAYERS_BEFORE_WINDOWS = 28
_PERIOD = 6

_MOST_LAYERS = 10_000  # tables of one entry a layer are made before any tensor is looked for


def _sizes(keys: ConfigKeys, **other: str) -> dict[str, Any]:
    """The sizes every family has, under its own names."""
    names = dict(
        vocab_size="vocab_size",
        width="hidden_size",
        hidden_width="intermediate_size",
        num_heads="num_attention_heads",
        context_length="max_position_embeddings",
    )
    sizes = {ours: keys.integer(theirs) for ours, theirs in (names | other).items()}
    return sizes | {"num_layers": keys.integer("num_hidden_layers", most=_MOST_LAYERS)}


def gpt2(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` gpt2."""
    hidden = keys.integer("n_inner" if keys.has("n_inner") else "n_embd")
    hidden *= 1 if keys.has("n_inner") else 4
    keys.get("n_inner")
    sizes: dict[str, Any] = dict(
        vocab_size=keys.integer("vocab_size"),
        width=keys.integer("n_embd"),
        num_layers=keys.integer("n_layer", most=_MOST_LAYERS),
        num_heads=keys.integer("n_head"),
        context_length=keys.integer("n_positions"),
    )
    keys.fixed("n_ctx", None, sizes["context_length"])
    keys.fixed("scale_attn_by_inverse_layer_idx", False, None)
    scaled = keys.flag("scale_attn_weights", True)
    return DecoderConfig(
        **sizes,
        hidden_width=hidden,
        num_kv_heads=sizes["num_heads"],
        norm_epsilon=keys.number("layer_norm_epsilon", 1e-5),
        tied=keys.flag("tie_word_embeddings", True),
        positions="learned",
        norm="layer",
        mlp="plain",
        activation=keys.choice("activation_function", _ACTIVATIONS, "gelu_new"),
        projection_biases=True,
        output_bias=True,
        mlp_biases=True,
        query_scale=None if scaled else 1.0,
    )


def gpt_neox(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` gpt_neox."""
    sizes = _sizes(keys)
    biases = keys.flag("attention_bias", True)
    rotary = read_rotary(
        keys,
        sizes["context_length"],
        theta_key="rope_theta" if keys.has("rope_theta") else "rotary_emb_base",
        fraction=keys.number("rotary_pct", 0.25),
    )
    keys.get("rotary_emb_base")
    keys.same("rotary_pct", rotary.fraction, "the fraction that rope_parameters has")
    keys.same("partial_rotary_factor", rotary.fraction, "the fraction that turns")
    return DecoderConfig(
        **sizes,
        num_kv_heads=sizes["num_heads"],
        norm_epsilon=keys.number("layer_norm_eps", 1e-5),
        tied=keys.flag("tie_word_embeddings", False),
        rotary=rotary,
        norm="layer",
        parallel=keys.flag("use_parallel_residual", True),
        mlp="plain",
        activation=keys.choice("hidden_act", _ACTIVATIONS, "gelu"),
        projection_biases=biases,
        output_bias=biases,
        mlp_biases=True,
    )


def _llama_like(keys: ConfigKeys, sizes: dict[str, Any], **more: Any) -> DecoderConfig:
    """What Llama, Mistral and Qwen share; `more` overrides it."""
    found: dict[str, Any] = dict(
        **sizes,
        norm_epsilon=keys.number("rms_norm_eps", 1e-6),
        tied=keys.flag("tie_word_embeddings", False),
        head_size=keys.integer("head_dim") if keys.has("head_dim") else None,
        activation=keys.choice("hidden_act", _ACTIVATIONS, "silu"),
    )
    keys.get("head_dim")
    return DecoderConfig(**(found | more))


def llama(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` llama."""
    sizes = _sizes(keys)
    sizes["num_kv_heads"] = keys.integer("num_key_value_heads", sizes["num_heads"])
    biases = keys.flag("attention_bias", False)
    keys.fixed("rope_interleaved", False, None)
    return _llama_like(
        keys,
        sizes,
        rotary=read_rotary(keys, sizes["context_length"]),
        projection_biases=biases,
        output_bias=biases,
        mlp_biases=keys.flag("mlp_bias", False),
    )


def mistral(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` mistral."""
    sizes = _sizes(keys, num_kv_heads="num_key_value_heads")
    keys.fixed("attention_bias", False, None)
    return _llama_like(
        keys,
        sizes,
        rotary=read_rotary(keys, sizes["context_length"]),
        window=read_window(keys),
    )


def _qwen(keys: ConfigKeys, **more: Any) -> DecoderConfig:
    sizes = _sizes(keys, num_kv_heads="num_key_value_heads")
    keys.fixed("use_mrope", False, None)
    first = keys.integer("max_window_layers", _LAYERS_BEFORE_WINDOWS)
    used = keys.flag("use_sliding_window", False)
    default = tuple(layer >= first for layer in range(sizes["num_layers"]))
    return _llama_like(
        keys,
        sizes,
        rotary=read_rotary(keys, sizes["context_length"]),
        **read_windows(
            keys,
            sizes["num_layers"],
            default,
            used=used,
            told={"max_window_layers": _LAYERS_BEFORE_WINDOWS},
        ),
        **more,
    )


def qwen2(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` qwen2."""
    return _qwen(keys, projection_biases=True)


def qwen3(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` qwen3."""
    biases = keys.flag("attention_bias", False)
    head_size = keys.integer("head_dim", 128)
    more: dict[str, Any] = dict(
        head_norms=True, head_size=head_size, projection_biases=biases, output_bias=biases
    )
    return _qwen(keys, **more)


def _gemma(keys: ConfigKeys, sizes: dict[str, Any], **more: Any) -> DecoderConfig:
    """What Gemma 2 and 3 share."""
    keys.fixed("use_bidirectional_attention", None, False)
    biases = keys.flag("attention_bias", False)
    return DecoderConfig(
        **sizes,
        norm_epsilon=keys.number("rms_norm_eps", 1e-6),
        tied=keys.flag("tie_word_embeddings", True),
        head_size=keys.integer("head_dim", 256),
        norm="rms_offset",
        post_norms=True,
        activation=keys.choice("hidden_activation", _ACTIVATIONS, "gelu_pytorch_tanh"),
        projection_biases=biases,
        output_bias=biases,
        query_scale=keys.number("query_pre_attn_scalar", 256) ** -0.5,
        embedding_scale=math.sqrt(sizes["width"]),
        **more,
    )


def gemma2(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` gemma2."""
    sizes = _sizes(keys, num_kv_heads="num_key_value_heads")
    default = tuple(layer % 2 == 0 for layer in range(sizes["num_layers"]))
    return _gemma(
        keys,
        sizes,
        rotary=read_rotary(keys, sizes["context_length"]),
        score_cap=keys.optional("attn_logit_softcapping", 50.0),
        logit_cap=keys.optional("final_logit_softcapping", 30.0),
        **read_windows(keys, sizes["num_layers"], default),
    )


def gemma3(keys: ConfigKeys) -> DecoderConfig:
    """Of `model_type` gemma3."""
    sizes = _sizes(keys, num_kv_heads="num_key_value_heads")
    keys.fixed("attn_logit_softcapping", None)  # transformers' Gemma 3 does not apply it
    period = keys.integer("sliding_window_pattern", keys.get("_sliding_window_pattern") or _PERIOD)
    keys.fixed("_sliding_window_pattern", None, period)
    default = tuple((layer + 1) % period != 0 for layer in range(sizes["num_layers"]))
    rotary = read_rotary(keys, sizes["context_length"], layers="full_attention", default_theta=1e6)
    local = read_rotary(
        keys,
        sizes["context_length"],
        layers="sliding_attention",
        theta_key="rope_local_base_freq",
        scaled=False,
    )
    return _gemma(
        keys,
        sizes,
        rotary=rotary,
        local_rotary=local,
        head_norms=True,
        logit_cap=keys.optional("final_logit_softcapping"),
        **read_windows(
            keys,
            sizes["num_layers"],
            default,
            told={"sliding_window_pattern": _PERIOD, "_sliding_window_pattern": _PERIOD},
        ),
    )
