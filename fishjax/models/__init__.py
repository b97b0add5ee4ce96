"""Language models as pure functions: decoders, Hugging Face and llama2.c checkpoints."""

from .checkpoint import LanguageModel, load, save_huggingface, save_llama2c
from .config import DecoderConfig
from .decoder import Cache, decoder_apply_fn, decoder_extend_fn, empty_cache, init_params
from .describe import Described, describe
from .errors import CheckpointError, TokenizerError
from .generate import Generated, Sampling, end_ids, generate
from .hub_data import data_file
from .huggingface import Placement, config_from_json
from .lora import adapted, init_adapters, join, merge, merged, split, unmerge
from .lora_config import LoraConfig
from .peft import load_adapter, save_adapter
from .placement import tensor_parallel
from .rotary import Rotary
from .tokenizer import Llama2cTokenizer, MissingTokenizer, Tokenizer
from .tokenizer_file import read_llama2c_tokenizer, save_llama2c_tokenizer

__all__ = [
    "Cache",
    "CheckpointError",
    "DecoderConfig",
    "Described",
    "Generated",
    "LanguageModel",
    "Llama2cTokenizer",
    "LoraConfig",
    "MissingTokenizer",
    "Placement",
    "Rotary",
    "Sampling",
    "Tokenizer",
    "TokenizerError",
    "adapted",
    "config_from_json",
    "data_file",
    "decoder_apply_fn",
    "decoder_extend_fn",
    "describe",
    "empty_cache",
    "end_ids",
    "generate",
    "init_adapters",
    "init_params",
    "join",
    "load",
    "load_adapter",
    "merge",
    "merged",
    "read_llama2c_tokenizer",
    "save_adapter",
    "save_huggingface",
    "save_llama2c",
    "save_llama2c_tokenizer",
    "split",
    "tensor_parallel",
    "unmerge",
]
