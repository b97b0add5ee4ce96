"""The tokenizer against a line-by-line copy of llama2.c's algorithm."""

import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from fishjax.models import (
    Llama2cTokenizer,
    MissingTokenizer,
    Tokenizer,
    TokenizerError,
    read_llama2c_tokenizer,
    save_llama2c_tokenizer,
)

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["ab", "abc", "bc", " a", " ab", "aa", "aaa", "aaaa", "  ", "b ", "é", "éa", "日", "ca b"]
TOKENS = ["<unk>", "\n<s>\n", "\n</s>\n", *BYTES, " ", "a", "b", "c", *WORDS]
SCORES = [0.0] * (3 + 256 + 4) + [-float(i % 5) for i in range(len(WORDS))]


@pytest.fixture(scope="module")
def tokenizer():
    return Llama2cTokenizer(TOKENS, SCORES)


@hypothesis.given(text=st.text("abc é日\n€"), bos=st.booleans())
def test_encode_equals_llama2c(tokenizer, oracle, text, bos):
    expected = oracle.encode(text, TOKENS, SCORES, bos)
    assert tokenizer.encode(text, bos=bos) == expected
    assert tokenizer.encode(text, bos=bos) == expected  # remembered


@hypothesis.given(
    text=st.text("ab "),
    words=st.lists(st.text("ab ", min_size=2, max_size=5), unique=True, max_size=8),
    data=st.data(),
)
def test_encode_equals_llama2c_for_any_vocabulary(oracle, text, words, data):
    tokens = ["<unk>", "<s>", "</s>", " ", "a", "b", *words]
    scores = data.draw(
        st.lists(
            st.sampled_from([-3.0, -1.0, 0.0, 2.5, -2e10]),
            min_size=len(tokens),
            max_size=len(tokens),
        )
    )
    tokenizer = Llama2cTokenizer(tokens, scores)
    assert tokenizer.encode(text, bos=False) == oracle.encode(text, tokens, scores, False)


def test_a_token_that_spells_a_byte_token_merges_across_cuts(oracle):
    tokens = ["<unk>", "<s>", "</s>", " ", "a", "<0x0A>", "<0x0A>a"]
    tokenizer = Llama2cTokenizer(tokens, [0.0] * 7)
    assert tokenizer.encode("a\na", bos=False) == oracle.encode("a\na", tokens, [0.0] * 7, False)
    assert tokenizer.encode("a\na", bos=False)[-1] == 6


@hypothesis.given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_inverts_encode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, bos=True)) == text


def test_decode_follows_llama2c(tokenizer):
    space_ab = TOKENS.index(" ab")
    assert tokenizer.decode([1, space_ab, space_ab]) == "ab ab"
    assert tokenizer.decode([space_ab, space_ab]) == " ab ab"
    assert tokenizer.decode([space_ab, 1, space_ab, 2]) == " abab"
    assert tokenizer.decode([3 + 0xC3, 3 + 0xA9]) == "é"
    assert tokenizer.decode([3 + 0xC3]) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(TokenizerError, match="id 999 is outside"):
        tokenizer.decode([999])
    with pytest.raises(TokenizerError, match="id -1 is outside"):
        tokenizer.decode([-1])


def test_empty_text(tokenizer):
    assert tokenizer.encode("", bos=True) == [1]
    assert tokenizer.encode("", bos=False) == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("character", ["ö", "\n", "\ud800"])
def test_a_character_without_bytes_is_named(character):
    tokenizer = Llama2cTokenizer(["<unk>", "<s>", "</s>", " ", "a"], [0.0] * 5)
    assert tokenizer.encode("a", bos=True) == [1, 3, 4]
    with pytest.raises(TokenizerError) as error:
        tokenizer.encode("a" + character, bos=True)
    assert ascii(character) in str(error.value)


def test_bad_vocabularies_are_refused():
    with pytest.raises(TokenizerError, match="2 tokens and 2 scores"):
        Llama2cTokenizer(["a", "b"], [0.0] * 2)
    with pytest.raises(TokenizerError, match="4 tokens and 3 scores"):
        Llama2cTokenizer(["a", "b", "c", "d"], [0.0] * 3)
    with pytest.raises(TokenizerError, match="score of token 1 is NaN"):
        Llama2cTokenizer(["a", "b", "c"], [0.0, float("nan"), 0.0])


def test_file_round_trip(tokenizer, tmp_path):
    path = tmp_path / "tok.bin"
    save_llama2c_tokenizer(path, TOKENS, SCORES)
    again = read_llama2c_tokenizer(path)
    assert again.vocab_size == tokenizer.vocab_size == len(TOKENS)
    text = "abc é\n日本 aaaa"
    assert again.encode(text, bos=True) == tokenizer.encode(text, bos=True)
    assert struct.unpack_from("<i", path.read_bytes())[0] == max(len(t.encode()) for t in TOKENS)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.binary(max_size=80))
def test_any_bytes_give_a_tokenizer_or_one_error(tmp_path, data):
    path = tmp_path / "tok.bin"
    path.write_bytes(data)
    try:
        size = read_llama2c_tokenizer(path).vocab_size
    except TokenizerError:
        return
    assert 3 <= size <= len(data) // 8


def test_truncations_are_refused_or_shorter(tmp_path):
    path = tmp_path / "tok.bin"
    save_llama2c_tokenizer(path, TOKENS, SCORES)
    data = path.read_bytes()
    for cut in (1, 5, 9):
        path.write_bytes(data[:-cut])
        with pytest.raises(TokenizerError, match="breaks off in token"):
            read_llama2c_tokenizer(path)


def test_missing_tokenizer_fails_when_text_is_needed(tmp_path):
    missing = MissingTokenizer("no tokenizer beside x.bin", 7)
    assert isinstance(missing, Tokenizer)
    assert missing.vocab_size == 7
    with pytest.raises(TokenizerError, match=r"beside x\.bin"):
        missing.encode("a", bos=True)
    with pytest.raises(TokenizerError, match=r"beside x\.bin"):
        missing.decode([1])
    with pytest.raises(TokenizerError, match="cannot read tokenizer"):
        read_llama2c_tokenizer(tmp_path / "absent.bin")
