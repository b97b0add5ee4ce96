"""Language models as pure functions: a Llama-family decoder and llama2.c checkpoints."""

from .checkpoint import LanguageModel, load, save_llama2c
from .config import DecoderConfig
from .decoder import decoder_apply_fn, init_params
from .errors import CheckpointError, TokenizerError
from .tokenizer import Llama2cTokenizer, MissingTokenizer, Tokenizer
from .tokenizer_file import read_llama2c_tokenizer, save_llama2c_tokenizer

__all__ = [
    "CheckpointError",
    "DecoderConfig",
    "LanguageModel",
    "Llama2cTokenizer",
    "MissingTokenizer",
    "Tokenizer",
    "TokenizerError",
    "decoder_apply_fn",
    "init_params",
    "load",
    "read_llama2c_tokenizer",
    "save_llama2c",
    "save_llama2c_tokenizer",
]
