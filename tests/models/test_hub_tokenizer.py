"""Tokenizers of Hugging Face directories: real ones, special tokens, damaged files."""

import gzip
import json
import shutil

import pytest
import tokenizers

from fishjax.models import TokenizerError
from fishjax.models.hub_tokenizer import read_hub_tokenizer

TEXTS = ["Hello world", "  two  spaces\n\ttab", "naïve café 東京 🙂", "x" * 2000, ""]


def byte_level(directory, *, processor=None, settings=None):
    """A small byte-level BPE with the tokens <s> and </s>."""
    directory.mkdir(exist_ok=True)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat eats the hen"] * 3, trainer)
    if processor:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=processor, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(directory / "tokenizer.json"))
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.mark.parametrize("text", TEXTS)
def test_truncation_and_padding_of_the_file_are_off(tmp_path, text):
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    tokenizer = read_hub_tokenizer(byte_level(tmp_path / "t", settings=settings), {})
    ids = tokenizer.encode(text, bos=True)
    assert ids[0] == tokenizer.bos_id == 0
    assert tokenizer.eos_id == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text, bos=False) == ids[1:]


@pytest.mark.parametrize(
    ("processor", "settings", "ids", "adds_bos", "bos", "eos"),
    [
        ("<s> $A", {"bos_token": "<s>", "eos_token": "</s>"}, {}, True, 0, 1),
        ("<s> $A", {"bos_token": "<s>", "add_bos_token": False}, {}, False, 0, 0),
        (None, {"bos_token": "<s>", "add_bos_token": True}, {}, True, 0, 0),
        (None, {"eos_token": "</s>"}, {}, False, 1, 1),
        (None, {"bos_token": None}, {"bos_token_id": 5, "eos_token_id": [7, 8]}, False, 5, 7),
        (None, {}, {"eos_token_id": 9}, False, 9, 9),
    ],
)
def test_begin_and_end_of_sequence(tmp_path, processor, settings, ids, adds_bos, bos, eos):
    directory = byte_level(tmp_path / "t", processor=processor, settings=settings)
    tokenizer = read_hub_tokenizer(directory, ids)
    assert (tokenizer.adds_bos, tokenizer.bos_id, tokenizer.eos_id) == (adds_bos, bos, eos)


def test_what_cannot_be_used_is_refused(tmp_path):
    assert read_hub_tokenizer(tmp_path, {}) is None
    directory = byte_level(tmp_path / "t")
    with pytest.raises(TokenizerError, match="neither begin nor end of sequence is known"):
        read_hub_tokenizer(directory, {})
    tokenizer = read_hub_tokenizer(directory, {"eos_token_id": 1})
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        tokenizer.encode("\ud800", bos=False)
    with pytest.raises(TokenizerError, match="id 5000 is outside"):
        tokenizer.decode([5000])
    (directory / "tokenizer_config.json").write_text("[")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        read_hub_tokenizer(directory, {"eos_token_id": 1})
    whole = (directory / "tokenizer.json").read_text()
    (directory / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(TokenizerError, match="copy it again"):
        read_hub_tokenizer(directory, {"eos_token_id": 1})


def test_vocabularies_and_tokens_that_cannot_be_encoded_are_refused(tmp_path):
    words = tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="'c' cannot be encoded: WordLevel error"):
        read_hub_tokenizer(tmp_path, {"eos_token_id": 1}).encode("c", bos=False)
    words = tokenizers.models.WordLevel({"b": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=f"tokenizer of {tmp_path}: WordLevel error"):
        read_hub_tokenizer(tmp_path, {"eos_token_id": 1})
    directory = byte_level(tmp_path / "t", settings={"eos_token": "\ud800"})
    with pytest.raises(TokenizerError, match=f"tokenizer of {directory}: .*surrogates not allowed"):
        read_hub_tokenizer(directory, {})


def test_chat_templates_are_found(tmp_path):
    directory = byte_level(tmp_path / "t", settings={"eos_token": "</s>", "chat_template": "A"})
    assert read_hub_tokenizer(directory, {}).chat_template == "A"
    named = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    settings = {"eos_token": "</s>", "chat_template": named}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_hub_tokenizer(directory, {}).chat_template == "D"
    (directory / "chat_template.jinja").write_text("J")
    assert read_hub_tokenizer(directory, {}).chat_template == "J"


@pytest.mark.shared
def test_smollm2(shared_data, tmp_path):
    """The stored file truncates to 128 tokens; ours does not."""
    source = shared_data / "tokenizers" / "smollm2"
    with gzip.open(source / "tokenizer.json.gz") as stream:
        (tmp_path / "tokenizer.json").write_bytes(stream.read())
    shutil.copy(source / "tokenizer_config.json", tmp_path)
    tokenizer = read_hub_tokenizer(tmp_path, {"bos_token_id": 0, "eos_token_id": 0})
    text = "The cat sat on the mat. " * 100
    ids = tokenizer.encode(text, bos=False)
    assert len(ids) > 600
    assert tokenizer.decode(ids) == text
    assert (tokenizer.vocab_size, tokenizer.adds_bos) == (49152, False)
    assert tokenizer.bos_id == tokenizer.encode("<|im_start|>", bos=False)[0]


@pytest.mark.shared
def test_gpt2_from_vocabulary_and_merges(shared_data):
    tokenizer = read_hub_tokenizer(
        shared_data / "tokenizers" / "gpt2", {"bos_token_id": 50256, "eos_token_id": 50256}
    )
    assert tokenizer.encode("Hello world", bos=False) == [15496, 995]
    assert tokenizer.encode("<|endoftext|>", bos=True) == [50256, 50256]
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, bos=False)) == text
