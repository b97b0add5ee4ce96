"""Token ids worked out by hand from lm-eval's conventions."""

import hashlib

import pytest

from fishjax.tasks import EncodedAnswer, TaskError, encode_questions


def ids(tokenizer, text):
    return tuple(tokenizer.encode(text, bos=False))


def encode(questions, tokenizer, context_length=100, adds_bos=True):
    return encode_questions(questions, tokenizer, context_length, adds_bos)


def test_prompt_then_answer(characters, make_question):
    tokenizer = characters()
    (encoded,) = encode([make_question("ab", " cd", " e")], tokenizer)
    assert encoded.id == "q"
    assert encoded.answers == (
        EncodedAnswer((1, *ids(tokenizer, "ab cd")), 3, False),
        EncodedAnswer((1, *ids(tokenizer, "ab e")), 2, False),
    )
    assert not encoded.truncated
    (without,) = encode([make_question("ab", " cd")], tokenizer, adds_bos=False)
    assert without.answers[0].token_ids == ids(tokenizer, "ab cd")


def test_trailing_white_space_of_the_context_moves_to_the_answer(characters, make_question):
    tokenizer = characters()
    (encoded,) = encode([make_question("ab \n ", "cd")], tokenizer)
    assert encoded.answers[0] == EncodedAnswer((1, *ids(tokenizer, "ab \n cd")), 5, False)


def test_joint_encoding_is_sliced_at_the_length_of_the_context(characters, make_question):
    """As lm-eval: a merge across the border leaves the context's own ids in front."""
    tokenizer = characters(["bc", " d"])
    (encoded,) = encode([make_question("ab", "cde")], tokenizer)
    # joint: a bc d e; context alone: a b, so the answer is joint[2 + BOS:] = d e.
    assert encoded.answers[0] == EncodedAnswer((1, *ids(tokenizer, "ab"), 13, 14), 2, False)
    (encoded,) = encode([make_question("ab ", "d")], tokenizer)
    assert encoded.answers[0] == EncodedAnswer((1, *ids(tokenizer, "ab"), 51), 1, False)


def test_an_answer_swallowed_by_the_prompt_is_an_error(characters, make_question):
    with pytest.raises(TaskError, match="question 'q': the answer 'c' has no token of its own"):
        encode([make_question("ab", "c")], characters(["bc"]))


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("context", ["", "  "])
def test_an_empty_context_is_one_begin_of_sequence_id(characters, make_question, context, adds_bos):
    tokenizer = characters()
    (encoded,) = encode([make_question(context, "cd")], tokenizer, adds_bos=adds_bos)
    expected = (1, *ids(tokenizer, context + "cd"))
    assert encoded.answers[0] == EncodedAnswer(expected, len(expected) - 1, False)


@pytest.mark.parametrize("context_length", range(2, 9))
def test_truncation_is_lm_evals(characters, make_question, context_length):
    tokenizer = characters()
    (encoded,) = encode([make_question("abcd", " e")], tokenizer, context_length)
    answer = encoded.answers[0]
    context, continuation = [1, *ids(tokenizer, "abcd")], list(ids(tokenizer, " e"))
    read = (context + continuation)[-(context_length + 1) :][:-1]  # lm-eval, huggingface.py
    assert list(answer.token_ids[:-1]) == read
    assert list(answer.token_ids[-answer.num_targets :]) == continuation
    assert answer.truncated == encoded.truncated == (context_length < 6)
    assert (answer.token_ids[0] == 1) == (context_length >= 6)  # BOS is dropped first


def test_only_an_answer_that_does_not_fit_alone_is_an_error(characters, make_question):
    question = make_question("abcd", " efg", " h", id="long one")
    (encoded,) = encode([question], characters(), context_length=4)
    assert [a.truncated for a in encoded.answers] == [True, True]
    with pytest.raises(TaskError, match=r"question 'long one': the answer ' efg'.* has 4 tokens"):
        encode([question], characters(), context_length=3)


def test_prompt_hash_depends_on_all_text_and_on_nothing_else(characters, make_question):
    questions = [
        make_question("ab", " c", " d"),
        make_question("ab", " c", " d", id="other"),
        make_question("ab ", "c", " d"),
        make_question("ab", " c", " e"),
        make_question("ab", " c"),
    ]
    hashes = [q.prompt_hash for q in encode(questions, characters())]
    assert hashes[0] == hashlib.sha256(b'["ab", " c", " d"]').hexdigest()[:16]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    shorter = encode(questions, characters(["ab"]), context_length=4)
    assert [q.prompt_hash for q in shorter] == hashes
