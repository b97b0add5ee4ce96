"""Plans are exact, deterministic, of few shapes, and change no log-likelihood."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from fishjax import models
from fishjax.tasks import (
    EncodedAnswer,
    EncodedQuestion,
    TaskError,
    answer_log_likelihoods,
    encode_questions,
    load_task,
    plan_batches,
    token_log_likelihoods,
)

CONTEXT = 40


@st.composite
def encoded_lists(draw):
    questions = []
    for number in range(draw(st.integers(1, 25))):
        answers = []
        for _ in range(draw(st.integers(1, 5))):
            length = draw(st.integers(2, CONTEXT + 1))
            num_targets = draw(st.integers(1, length - 1))
            answers.append(EncodedAnswer(tuple(range(3, 3 + length)), num_targets, False))
        questions.append(EncodedQuestion(f"q{number}", tuple(answers), "0" * 16))
    return questions


def unpad(plan, row, column):
    """Reads one answer back from the padded arrays."""
    count = int(plan.groups["target_mask"][row, column].sum())
    positions = plan.groups["positions"][row, column][:count]
    tokens = plan.groups["token_ids"][row, column][: positions[-1] + 1]
    targets = plan.groups["targets"][row, column][:count]
    assert positions.tolist() == list(range(positions[0], positions[0] + count))
    assert tokens[positions[1:]].tolist() == targets[:-1].tolist()  # each target is read next
    return (*tokens.tolist(), int(targets[-1])), count


@hypothesis.settings(max_examples=60)
@hypothesis.given(encoded=encoded_lists(), batch_tokens=st.integers(1, 3000))
def test_plans_hold_every_answer_once_and_nothing_else(encoded, batch_tokens):
    plans = plan_batches(encoded, batch_tokens=batch_tokens)
    seen = [int(i) for plan in plans for i in plan.indices if i >= 0]
    assert sorted(seen) == list(range(len(encoded)))
    for plan in plans:
        size, num_answers, length = plan.groups["token_ids"].shape
        assert length <= CONTEXT
        assert size == 1 or size * num_answers * length <= batch_tokens
        assert plan.mask.shape == (size, num_answers)
        assert (plan.indices >= 0).any()
        for row, index in enumerate(plan.indices):
            answers = encoded[index].answers if index >= 0 else ()
            assert plan.mask[row].tolist() == [c < len(answers) for c in range(num_answers)]
            for column, answer in enumerate(answers):
                expected = (answer.token_ids, answer.num_targets)
                assert unpad(plan, row, column) == expected
            for name in plan.groups:
                assert not plan.groups[name][row, len(answers) :].any()
    shapes = {plan.groups["token_ids"].shape + plan.groups["targets"].shape for plan in plans}
    assert len(shapes) <= 8


@st.composite
def prompted_lists(draw):
    """Questions whose answers have one prompt, as encoding makes them."""
    questions = []
    for number in range(draw(st.integers(1, 12))):
        prompt = tuple(range(100, 100 + draw(st.integers(1, 30))))
        counts = draw(st.lists(st.integers(1, 10), min_size=1, max_size=5))
        answers = tuple(
            EncodedAnswer((*prompt, *range(200 + 20 * k, 200 + 20 * k + n)), n, False)
            for k, n in enumerate(counts)
        )
        questions.append(EncodedQuestion(f"q{number}", answers, "0" * 16))
    return questions


def unpad_shared(plan, row, column):
    """Reads one answer of a shared prompt back: its sequence is the prefix and what follows."""
    groups = plan.groups
    count = int(groups["target_mask"][row, column].sum())
    length = groups["prefix_lengths"][row]
    prefix, padding = np.split(groups["prefix"][row], [length])
    assert not padding.any()
    follows = groups["token_ids"][row, column][:count].tolist()
    targets = groups["targets"][row, column][:count].tolist()
    assert follows[1:] == targets[:-1]
    return (*prefix.tolist(), *follows, targets[-1]), count


@hypothesis.settings(max_examples=60)
@hypothesis.given(encoded=prompted_lists(), batch_tokens=st.integers(1, 3000))
def test_shared_plans_hold_every_answer_once_and_nothing_else(encoded, batch_tokens):
    plans = plan_batches(encoded, batch_tokens=batch_tokens, share_prompts=True)
    seen = [int(i) for plan in plans for i in plan.indices if i >= 0]
    assert sorted(seen) == list(range(len(encoded)))
    for plan in plans:
        shared = "prefix" in plan.groups
        for row, index in enumerate(plan.indices):
            answers = encoded[index].answers if index >= 0 else ()
            assert plan.mask[row].sum() == len(answers)
            for column, answer in enumerate(answers):
                read = (unpad_shared if shared else unpad)(plan, row, column)
                assert read == (answer.token_ids, answer.num_targets)
            assert not plan.groups["target_mask"][row, len(answers) :].any()


def test_prompts_are_shared_where_they_are_long_and_the_same():
    def question(prompts, count):
        answers = tuple(EncodedAnswer((*p, *range(count)), count, False) for p in prompts)
        return EncodedQuestion("q", answers, "0" * 16)

    long, short, other = tuple(range(30)), (1,), tuple(range(1, 31))
    cases = {
        True: [question([long] * 3, 2)],
        False: [question([short] * 3, 20), question([long], 2), question([long, other], 2)],
    }
    for shared, questions in cases.items():
        for one in questions:
            (plan,) = plan_batches([one], batch_tokens=999, share_prompts=True)
            assert ("prefix" in plan.groups) == shared


@hypothesis.settings(max_examples=20)
@hypothesis.given(encoded=encoded_lists())
def test_plans_are_deterministic(encoded):
    first, second = (plan_batches(encoded, batch_tokens=500) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.mask, b.mask)
        for name in a.groups:
            np.testing.assert_array_equal(a.groups[name], b.groups[name])


def test_equal_questions_need_one_shape_and_no_padding():
    answers = (EncodedAnswer(tuple(range(11)), 2, False),) * 4
    encoded = [EncodedQuestion(f"q{i}", answers, "") for i in range(10)]
    plans = plan_batches(encoded, batch_tokens=4 * 10 * 4)
    assert [plan.groups["token_ids"].shape for plan in plans] == [(4, 4, 10)] * 3
    assert [plan.indices.tolist() for plan in plans] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]


def test_nothing_to_plan_and_bad_batch_tokens():
    assert plan_batches([], batch_tokens=10) == []
    for bad in (0, -3):
        with pytest.raises(TaskError, match=f"batch_tokens is {bad}"):
            plan_batches([], batch_tokens=bad)


@pytest.fixture(scope="module")
def model():
    config = models.DecoderConfig(64, 16, 24, 2, 4, 2, CONTEXT)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: models.init_params(config, key), jax.random.key(0))
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 4, leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes), jax.jit(models.decoder_apply_fn(config))


@pytest.fixture
def encoded(characters, make_question):
    questions = [
        make_question("ab", " yes", " no"),
        make_question("a long question", " yes", " no", " maybe so"),
        make_question("another one that is truncated on its left side now", " yes", " no"),
        make_question("no", " a", " b"),
    ]
    return encode_questions(questions, characters(), CONTEXT, adds_bos=True)


def by_hand(model, answer):
    """Float64 log-softmax of an unpadded, unbatched forward."""
    params, apply_fn = model
    logits = np.asarray(apply_fn(params, jnp.array([answer.token_ids[:-1]])), np.float64)[0]
    log_probs = logits - logits.max(-1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
    log_probs = log_probs[-answer.num_targets :]
    targets = answer.token_ids[-answer.num_targets :]
    entropies = -(np.exp(log_probs) * log_probs).sum(-1)
    return log_probs[np.arange(len(targets)), targets], entropies


@pytest.mark.parametrize("batch_tokens", [1, 200, 100000])
def test_padding_and_composition_change_no_log_likelihood(model, encoded, batch_tokens):
    params, apply_fn = model
    fn = jax.jit(answer_log_likelihoods(apply_fn))
    statistics = jax.jit(token_log_likelihoods(apply_fn))
    for plan in plan_batches(encoded, batch_tokens=batch_tokens):
        shape = plan.mask.shape
        rows = {name: leaf.reshape(-1, leaf.shape[-1]) for name, leaf in plan.groups.items()}
        totals = np.asarray(fn(params, rows)).reshape(shape)
        tokens = jax.tree.map(
            lambda a, s=shape: np.asarray(a).reshape(*s, -1), statistics(params, rows)
        )
        assert totals.dtype == np.float32
        assert not totals[~plan.mask].any()
        for row, index in enumerate(plan.indices):
            for column, answer in enumerate(encoded[index].answers if index >= 0 else ()):
                log_probs, entropies = by_hand(model, answer)
                count = answer.num_targets
                np.testing.assert_allclose(totals[row, column], log_probs.sum(), rtol=2e-6)
                got = tokens.log_likelihoods[row, column]
                np.testing.assert_allclose(got[:count], log_probs, rtol=2e-5)
                np.testing.assert_allclose(
                    tokens.entropies[row, column][:count], entropies, rtol=2e-5
                )
                assert not got[count:].any()
                assert not tokens.entropies[row, column][count:].any()


def test_padding_gets_no_gradient_even_where_the_model_is_not_finite():
    """Row 1 is padding and its logits are NaN or infinite: no trace of it may be left."""

    def apply_fn(params, token_ids, positions):
        return params + jnp.array([[[0.0] * 4], [[np.nan, np.inf, -np.inf, 0.0]]])

    rows = {
        "token_ids": jnp.zeros((2, 3), int),
        "positions": jnp.zeros((2, 1), int),
        "targets": jnp.array([[2], [0]]),
        "target_mask": jnp.array([[1.0], [0.0]]),
    }
    params = jnp.array([0.0, 1.0, 2.0, -1.0])
    fn = answer_log_likelihoods(apply_fn)
    value, gradient = jax.value_and_grad(lambda p: fn(p, rows).sum())(params)
    p = np.exp(np.asarray(params)) / np.exp(np.asarray(params)).sum()
    np.testing.assert_allclose(value, np.log(p[2]), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.eye(4)[2] - p, rtol=1e-5)
    assert fn(params, rows)[1] == 0
    np.testing.assert_array_equal(token_log_likelihoods(apply_fn)(params, rows).entropies[1], 0)


def test_a_target_outside_the_vocabulary_is_not_another_target(model):
    params, apply_fn = model
    rows = {
        "token_ids": jnp.ones((1, 4), int),
        "positions": jnp.array([[2]]),
        "targets": jnp.array([[64]]),
        "target_mask": jnp.ones((1, 1)),
    }
    assert np.isnan(answer_log_likelihoods(apply_fn)(params, rows)).all()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["stories260K", "stories3M_q80"])
@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("truthfulqa_mc1", "truthfulqa/mc_task.json"),
        ("commonsenseqa", "commonsenseqa/dev_rand_split.jsonl"),
    ],
)
def test_real_tasks_need_few_shapes_and_waste_little(shared_data, name, task, file):
    path = shared_data / "models" / name
    tokenizer = models.read_llama2c_tokenizer(next(path.glob("tok*.bin")))
    questions = load_task(task, shared_data / file).questions
    encoded = encode_questions(questions, tokenizer, 512, adds_bos=True)
    for batch_tokens in (2048, 8192):
        plans = plan_batches(encoded, batch_tokens=batch_tokens)
        real = sum(len(a.token_ids) - 1 for q in encoded for a in q.answers)
        padded = sum(plan.groups["token_ids"].size for plan in plans)
        assert len({plan.groups["targets"].shape for plan in plans}) <= 8
        assert 1 - real / padded < 0.20
