"""Families of decoders on the Hugging Face hub, by their `model_type`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from . import family_configs as configs
from . import family_tensors as tensors
from .config import DecoderConfig
from .config_keys import ConfigKeys
from .errors import CheckpointError
from .family_tensors import Tensor

__all__ = ["FAMILIES", "IGNORABLE", "SWITCHES", "Family", "Tensor", "family_of"]

IGNORABLE = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "_num_labels",
        "architectures",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "attn_implementation",
        "attn_pdrop",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "embd_dropout",
        "embd_pdrop",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "hidden_dropout",
        "hidden_dropout_prob",
        "id2label",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "length_penalty",
        "max_length",
        "max_sequence_length",
        "min_length",
        "mlp_dropout",
        "model_type",
        "n_special",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "output_scores",
        "pad_token_id",
        "predict_special_tokens",
        "prefix",
        "pretraining_tp",
        "problem_type",
        "remove_invalid_values",
        "reorder_and_upcast_attn",
        "repetition_penalty",
        "resid_dropout",
        "resid_pdrop",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "unsloth_fixed",
        "unsloth_version",
        "use_bfloat16",
        "use_cache",
        "use_return_dict",
    }
)
"""Keys that cannot change logits: training, names, output formats, dropout, special ids, and the
options of sampling that old files have here."""

SWITCHES: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}),
    "tie_encoder_decoder": (False, None),
}
"""Keys of another architecture, and the values that switch it off, which old files state."""


class Family(NamedTuple):
    """How one `model_type` is read.

    Attributes:
      config: keys of `config.json` to our config, without dtype and remat.
      tensors: of such a model.
      prefix: of tensor names, which some files leave out.
      buffers: endings of tensor names that hold no parameters.
      ignorable: keys of its config that do nothing, beside `IGNORABLE`.
    """

    config: Callable[[ConfigKeys], DecoderConfig]
    tensors: Callable[[DecoderConfig], list[Tensor]]
    prefix: str
    buffers: tuple[str, ...] = ("rotary_emb.inv_freq",)
    ignorable: frozenset[str] = frozenset()


_BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias",
            "attention.masked_bias")  # fmt: skip

FAMILIES: dict[str, Family] = {
    "gpt2": Family(configs.gpt2, tensors.gpt2_tensors, "transformer.", _BUFFERS),
    "gpt_neox": Family(configs.gpt_neox, tensors.gpt_neox_tensors, "gpt_neox.", _BUFFERS),
    "llama": Family(configs.llama, tensors.llama_tensors, "model."),
    "mistral": Family(configs.mistral, tensors.llama_tensors, "model."),
    "qwen2": Family(configs.qwen2, tensors.llama_tensors, "model."),
    "qwen3": Family(configs.qwen3, tensors.llama_tensors, "model."),
    "gemma2": Family(
        configs.gemma2, tensors.llama_tensors, "model.", ignorable=frozenset({"hidden_act"})
    ),
    "gemma3_text": Family(configs.gemma3, tensors.llama_tensors, "model."),
}
"""`model_type` to family: a new one is a reader of its keys and its list of tensors."""


def family_of(keys: ConfigKeys) -> Family:
    """The family of a config.

    Raises:
      CheckpointError: a `model_type` that is not supported.
    """
    name = keys.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointError(
            f"model_type is {name!r}: expected one of {', '.join(FAMILIES)}; for another "
            "architecture pass your own apply_fn"
        )
    return FAMILIES[name]
