"""Every token is scored once, given as much as fits, however documents are cut."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from fishjax.models import read_llama2c_tokenizer
from fishjax.tasks import (
    TaskError,
    encode_documents,
    plan_batches,
    read_documents,
)

SEEN = hypothesis.settings(
    max_examples=80,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    deadline=None,
)


@st.composite
def cuts(draw):
    context_length = draw(st.integers(1, 12))
    stride = draw(st.none() | st.integers(1, context_length))
    documents = draw(st.lists(st.text("abcd ", max_size=40), min_size=1, max_size=4))
    return documents, context_length, stride


@SEEN
@hypothesis.given(cut=cuts(), adds_bos=st.booleans())
def test_every_token_is_a_target_exactly_once(characters, cut, adds_bos):
    documents, context_length, stride = cut
    tokenizer = characters()
    whole = [tokenizer.encode(document, bos=adds_bos) for document in documents]
    hypothesis.assume(any(len(ids) > 1 for ids in whole))
    encoded = encode_documents(documents, tokenizer, context_length, adds_bos, stride)
    assert len(encoded.windows) == len(encoded.documents)
    assert encoded.documents.tolist() == sorted(encoded.documents.tolist())
    assert len({window.id for window in encoded.windows}) == len(encoded.windows)
    found = [[] for _ in documents]
    for window, owner in zip(encoded.windows, encoded.documents, strict=True):
        (answer,) = window.answers
        ids, end = whole[owner], 1 + len(found[owner]) + answer.num_targets
        assert window.id == f"{owner}:{end - answer.num_targets - adds_bos}"
        assert answer.token_ids == tuple(ids[max(0, end - context_length - 1) : end])
        assert answer.truncated == (end > context_length + 1)
        for place in range(end - answer.num_targets, end):
            given = len(answer.token_ids) - (end - place)
            assert given >= min(place, context_length + 1 - (stride or context_length))
        found[owner] += answer.token_ids[-answer.num_targets :]
    assert found == [ids[1:] for ids in whole]


def test_disjoint_windows_are_lm_evals_rolling_ones(characters):
    tokenizer = characters()
    encoded = encode_documents(["abcdefgh"], tokenizer, 3, adds_bos=True)
    rows = [
        (tokenizer.decode(window.answers[0].token_ids), window.answers[0].num_targets)
        for window in encoded.windows
    ]
    assert rows == [("abc", 3), ("cdef", 3), ("efgh", 2)]
    assert encoded.windows[0].answers[0].token_ids[0] == tokenizer.bos_id
    assert [window.id for window in encoded.windows] == ["0:0", "0:3", "0:6"]


def test_a_stride_gives_more_context(characters):
    tokenizer = characters()
    encoded = encode_documents(["abcdefgh", "a"], tokenizer, 4, adds_bos=False, stride=2)
    rows = [
        (tokenizer.decode(window.answers[0].token_ids), window.answers[0].num_targets)
        for window in encoded.windows
    ]
    assert rows == [("abcde", 4), ("cdefg", 2), ("defgh", 1)]
    assert encoded.documents.tolist() == [0, 0, 0]  # nothing precedes the only token of "a"


@SEEN
@hypothesis.given(cut=cuts(), batch_tokens=st.integers(1, 200))
def test_a_bigram_model_scores_documents_alike_however_they_are_cut(characters, cut, batch_tokens):
    documents, context_length, stride = cut
    tokenizer = characters()
    hypothesis.assume(any(documents))
    table = np.random.default_rng(0).normal(size=(64, 64))
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    expected = np.zeros(len(documents))
    for number, document in enumerate(documents):
        ids = tokenizer.encode(document, bos=True)
        expected[number] = log_probs[ids[:-1], ids[1:]].sum()

    encoded = encode_documents(documents, tokenizer, context_length, True, stride)
    totals = np.zeros(len(documents))
    for plan in plan_batches(encoded.windows, batch_tokens=batch_tokens):
        rows = {name: leaf[:, 0] for name, leaf in plan.groups.items()}
        read = np.take_along_axis(rows["token_ids"], rows["positions"], axis=1)
        scores = (log_probs[read, rows["targets"]] * rows["target_mask"]).sum(axis=1)
        real = plan.indices >= 0
        np.add.at(totals, encoded.documents[plan.indices[real]], scores[real])
    np.testing.assert_allclose(totals, expected, rtol=1e-12)


@SEEN
@hypothesis.given(cut=cuts())
def test_bytes_of_a_document_are_all_or_all_but_the_first_tokens(characters, cut):
    documents, context_length, stride = cut
    tokenizer = characters()
    hypothesis.assume(any(len(tokenizer.encode(d, bos=False)) > 1 for d in documents))
    for adds_bos in (True, False):
        encoded = encode_documents(documents, tokenizer, context_length, adds_bos, stride)
        for owner, size in zip(encoded.documents, encoded.num_bytes, strict=True):
            assert size == len(documents[owner]) - (not adds_bos)


@pytest.mark.parametrize(
    ("text", "first", "scored"),
    [
        ("Ünder the", "Ün", len(b"der the")),
        ("under the", " under", len(b" the")),  # a space that the tokenizer put in front
        (" under", " un", len(b"der")),
        ("\U0001f600 ha", "\ufffd", len("\U0001f600 ha".encode())),  # half of a character
        ("é\U0001f600", "é\ufffd", 4),
    ],
)
def test_the_first_token_is_not_scored_without_a_begin(text, first, scored):
    class Tokenizer:
        bos_id, eos_id, vocab_size = 0, 0, 3

        def encode(self, text, *, bos):
            assert not bos
            return [1, 2]

        def decode(self, ids):
            assert list(ids) == [1]
            return first

    assert encode_documents([text], Tokenizer(), 8, adds_bos=False).num_bytes.tolist() == [scored]


def test_the_hash_depends_on_what_is_read_and_on_what_counts(characters):
    def hashes(text, *settings):
        return [w.prompt_hash for w in encode_documents([text], characters(), *settings).windows]

    first = hashes("abcabc", 3, False)
    assert first == hashes("abcabc", 3, False)
    assert first != hashes("abcabc", 4, False)
    assert hashes("abc", 4, False) != hashes("abd", 4, False)


@pytest.mark.parametrize(
    ("documents", "context_length", "stride", "message"),
    [
        ([], 4, None, "none of 0 documents has two tokens"),
        (["", ""], 4, None, "none of 2 documents"),
        (["ab"], 0, None, "context_length is 0"),
        (["ab"], True, None, "context_length is True"),
        (["ab"], 4, 0, "stride is 0: expected an integer from 1 to the context length 4"),
        (["ab"], 4, 5, "stride is 5"),
        (["ab"], 4, True, "stride is True"),
    ],
)
def test_bad_arguments(characters, documents, context_length, stride, message):
    with pytest.raises(TaskError, match=message):
        encode_documents(documents, characters(), context_length, True, stride)


@pytest.mark.shared
def test_stories(shared_data):
    tokenizer = read_llama2c_tokenizer(shared_data / "models/stories260K/tok512.bin")
    documents = read_documents(next((shared_data / "tinystories").glob("valid*")))[:50]
    encoded = encode_documents(documents, tokenizer, 128, True, 64)
    targets = sum(window.answers[0].num_targets for window in encoded.windows)
    assert targets == sum(len(tokenizer.encode(text, bos=False)) for text in documents)
    assert set(encoded.documents.tolist()) == set(range(50))


def test_a_record_without_text_says_what_it_has(tmp_path):
    path = tmp_path / "papers.jsonl"
    path.write_text('{"text": " one "}\n{"id": 1, "abstract": "two"}\n')
    with pytest.raises(TaskError, match="line 2: the keys are id, abstract: expected one of name"):
        read_documents(path)
