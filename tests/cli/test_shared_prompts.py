"""Answers that share their prompt's computation score as answers apart."""

import jax
import numpy as np
import pytest

from fishjax.cli.programs import Programs
from fishjax.cli.step import build_step
from fishjax.models import DecoderConfig, decoder_apply_fn, init_params
from fishjax.tasks import EncodedAnswer, EncodedQuestion, plan_batches

CONFIG = DecoderConfig(
    vocab_size=32, width=16, hidden_width=24, num_layers=2, num_heads=4, num_kv_heads=2,
    context_length=40, remat=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoded():
    rng = np.random.default_rng(0)

    def question(name, prompt, counts):
        shared = rng.integers(3, 32, prompt).tolist()
        answers = tuple(
            EncodedAnswer((*shared, *rng.integers(3, 32, n).tolist()), n, False) for n in counts
        )
        return EncodedQuestion(name, answers, "0" * 16)

    return [
        question("a", 24, (2, 3, 1)),
        question("b", 24, (1, 2)),  # padded to three answers
        question("c", 22, (3, 1, 1)),
        question("d", 4, (9, 9)),  # cheaper apart
    ]


def by_question(encoded, *, share):
    plans = plan_batches(encoded, batch_tokens=400, share_prompts=share)
    programs = Programs(
        build_step(decoder_apply_fn(CONFIG)), init_params(CONFIG, jax.random.key(0))
    )
    found = {}
    for plan in plans:
        outputs = programs(plan)
        assert outputs.finite.all()
        for row, index in enumerate(plan.indices):
            if index >= 0:
                found[int(index)] = jax.tree.map(lambda x, row=row: x[row], outputs)
    return plans, found


def test_scores_are_the_same(encoded):
    plans, shared = by_question(encoded, share=True)
    kinds = {"prefix" in plan.groups for plan in plans}
    assert kinds == {True, False}  # both sorts of batches ran
    _, apart = by_question(encoded, share=False)
    for index, question in enumerate(encoded):
        a, b, count = shared[index], apart[index], len(question.answers)
        np.testing.assert_allclose(a.log_likelihoods[:count], b.log_likelihoods[:count], rtol=1e-5)
        assert a.chosen == b.chosen
        for name, values in a.scores.items():
            np.testing.assert_allclose(
                values[:count], b.scores[name][:count], atol=1e-3, err_msg=name
            )
        for path, share in a.shares.items():
            np.testing.assert_allclose(share, b.shares[path], atol=1e-4, err_msg=path)
