"""Every gradient score against `jax.grad` of the probability itself, in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy

from fishjax import gradients, scores
from fishjax.tasks import answer_log_likelihoods, token_log_likelihoods

pytestmark = pytest.mark.usefixtures("x64")

# One compilation a shape instead of one an operation.
evaluate_scores = jax.jit(scores.evaluate_scores)

V, D, T, A = 11, 6, 7, 3


class TinyCase(NamedTuple):
    params: dict
    groups: dict
    mask: np.ndarray


def apply_fn(params, token_ids, positions=None):
    """A causal running mean of embeddings through one hidden layer; `[N, T or A, V]`."""
    embedded = params["embedding"][token_ids]
    steps = jnp.arange(1, token_ids.shape[1] + 1)[:, None]
    context = jnp.cumsum(embedded, axis=1) / steps
    hidden = jnp.tanh(context @ params["hidden"] + embedded)
    if positions is not None:
        hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1)
    return hidden @ params["head"]


def make_case(seed, num_questions, num_answers):
    rng = np.random.default_rng(seed)
    shape = (num_questions, num_answers)
    params = {
        "embedding": rng.normal(size=(V, D)),
        "hidden": rng.normal(size=(D, D)),
        "head": rng.normal(size=(D, V)),
    }
    lengths = rng.integers(1, A + 1, size=shape)
    steps = np.arange(A)
    groups = {
        "token_ids": rng.integers(0, V, size=(*shape, T)),
        "positions": np.broadcast_to(steps + T - A - 1, (*shape, A)).copy(),
        "targets": rng.integers(0, V, size=(*shape, A)),
        "target_mask": (steps < lengths[..., None]).astype(np.float64),
    }
    mask = np.ones(shape, bool)
    if num_answers > 2:
        mask[0, -1] = False
    return TinyCase(jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, groups), mask)


def answers_of(case):
    params, groups = case.params, case.groups
    mask = jnp.asarray(case.mask)
    fn = answer_log_likelihoods(apply_fn)
    outputs, gram = gradients.grouped_gram(fn)(params, groups, mask)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), groups)
    tokens = token_log_likelihoods(apply_fn)(params, rows)
    lengths = groups["target_mask"].sum(-1)
    entropies = tokens.entropies.sum(-1).reshape(mask.shape) / lengths
    answers = scores.Answers(outputs, gram.total, mask, lengths.astype(int), entropies)
    return answers, gram


def probabilities(case, question, params, normalise):
    """The four probabilities of a question's answers, straight from the definitions."""
    keep = np.flatnonzero(case.mask[question])
    groups = {name: leaf[question, keep] for name, leaf in case.groups.items()}
    logits = apply_fn(params, groups["token_ids"], groups["positions"])
    log_p = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_p, groups["targets"][..., None], axis=-1)[..., 0]
    total = (picked * groups["target_mask"]).sum(1)
    if normalise:
        total = total / groups["target_mask"].sum(1)
    return jnp.exp(total), jax.nn.softmax(total)


VIEWS = {
    "sequence_": (0, False),
    "": (1, False),
    "normalised_sequence_": (0, True),
    "normalised_choice_": (1, True),
}


@pytest.mark.parametrize("prefix", VIEWS)
@pytest.mark.parametrize("num_answers", [2, 4])
def test_gradient_scores_equal_autodiff_of_the_probability(prefix, num_answers):
    case = make_case(num_answers, 3, num_answers)
    answers, _ = answers_of(case)
    values = evaluate_scores(answers)
    which, normalise = VIEWS[prefix]
    for question in range(2):

        def of_params(params, question=question):
            return probabilities(case, question, params, normalise)[which]

        p, jacobian = of_params(case.params), jax.jit(jax.jacrev(of_params))(case.params)
        squared = sum(jnp.square(j).reshape(p.size, -1).sum(1) for j in jax.tree.leaves(jacobian))
        keep = np.flatnonzero(case.mask[question])
        expected = {
            "epistemic": jnp.log(squared),
            "aleatoric": jnp.log(p * (1 - p)),
            "scale_free": jnp.log(squared / (p * (1 - p)) ** 2),
        }
        for name, value in expected.items():
            ours = values[prefix + name][question, keep]
            np.testing.assert_allclose(ours, value, rtol=1e-10, atol=1e-10, err_msg=name)


def test_the_three_forms_of_the_choice_norm_agree():
    case = make_case(7, 3, 4)
    answers, _ = answers_of(case)
    ours = jnp.exp(scores.of_choice(answers).log_epistemic)
    p = jnp.exp(scores.log_probabilities(answers.log_likelihoods, answers.mask))
    gram = answers.gram
    mean = jnp.einsum("qij,qj->qi", gram, p)
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    textbook = p**2 * (diagonal - 2 * mean + jnp.einsum("qi,qi->q", p, mean)[:, None])
    softmax_jacobian = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]
    covariance = softmax_jacobian @ gram @ softmax_jacobian
    np.testing.assert_allclose(ours[case.mask], textbook[case.mask], rtol=1e-9)
    np.testing.assert_allclose(
        ours[case.mask], jnp.diagonal(covariance, axis1=1, axis2=2)[case.mask], rtol=1e-9
    )


def test_fisher_trace_and_exgrad_equal_their_sums():
    case = make_case(8, 2, 3)
    answers, _ = answers_of(case)
    values = evaluate_scores(answers)
    for question in range(2):

        def choice(params, question=question):
            return probabilities(case, question, params, False)[1]

        params = case.params
        p, jacobian = choice(params), jax.jacrev(choice)(params)
        squared = sum(jnp.square(j).reshape(p.size, -1).sum(1) for j in jax.tree.leaves(jacobian))
        np.testing.assert_allclose(
            values["fisher_trace"][question, 0], jnp.log((squared / p).sum()), atol=1e-10
        )
        np.testing.assert_allclose(
            values["exgrad"][question, 0], jnp.log(jnp.sqrt(squared).sum()), atol=1e-10
        )


def test_parameter_shares_equal_the_share_of_each_gradient():
    case = make_case(9, 3, 4)
    answers, gram = answers_of(case)
    index = scores.choose(answers.log_likelihoods, answers.mask).index
    shares = scores.parameter_shares(
        answers.log_likelihoods, gram.by_parameter, answers.mask, index
    )
    for question in range(3):
        keep = np.flatnonzero(case.mask[question])
        chosen = int(np.flatnonzero(keep == int(index[question]))[0])

        def chosen_p(params, question=question, chosen=chosen):
            return probabilities(case, question, params, False)[1][chosen]

        gradient = jax.grad(chosen_p)(case.params)
        norms = {name: float(jnp.square(g).sum()) for name, g in gradient.items()}
        for name, norm in norms.items():
            share = norm / sum(norms.values())
            np.testing.assert_allclose(shares[name][question], share, rtol=1e-9)


def test_scanned_layers_keep_their_layer_axis():
    case = make_case(10, 2, 3)
    answers, gram = answers_of(case)
    index = scores.choose(answers.log_likelihoods, answers.mask).index
    split = {
        "layers/w": jnp.stack([gram.by_parameter["hidden"], 3 * gram.by_parameter["hidden"]]),
        "head": gram.by_parameter["head"],
    }
    shares = scores.parameter_shares(answers.log_likelihoods, split, answers.mask, index)
    assert shares["layers/w"].shape == (2, 2)
    np.testing.assert_allclose(shares["layers/w"][:, 1], 3 * shares["layers/w"][:, 0], rtol=1e-12)
    np.testing.assert_allclose(shares["layers/w"].sum(1) + shares["head"], 1.0, rtol=1e-12)


def test_token_scores_equal_autodiff_of_each_token():
    case = make_case(11, 2, 2)
    params, groups = case.params, case.groups
    rows = jax.tree.map(lambda leaf: leaf[:, 0], groups)
    token_fn = lambda p, r: token_log_likelihoods(apply_fn)(p, r).log_likelihoods  # noqa: E731
    log_likelihoods, norms = gradients.output_squared_norms(token_fn, chunk=1)(params, rows)
    kept = rows["target_mask"] > 0
    ours = {
        score.name: score.function(log_likelihoods, norms.total, kept)
        for score in scores.TOKEN_SCORES
    }

    def token_p(params, n, t):
        logits = apply_fn(params, rows["token_ids"][n : n + 1], rows["positions"][n : n + 1])
        return jax.nn.softmax(logits[0, t])[rows["targets"][n, t]]

    for n in range(2):
        squared = []
        for t in range(int(kept[n].sum())):
            gradient = jax.grad(token_p)(params, n, t)
            squared.append(sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(gradient)))
        assert float(ours["token_epistemic_mean"][n]) == pytest.approx(np.log(np.mean(squared)))
        assert float(ours["token_epistemic_max"][n]) == pytest.approx(np.log(np.max(squared)))


def test_token_entropies_equal_scipy():
    case = make_case(12, 2, 2)
    answers, _ = answers_of(case)
    for q in range(2):
        for k in range(2):
            logits = apply_fn(
                case.params,
                case.groups["token_ids"][q, k][None],
                case.groups["positions"][q, k][None],
            )
            p = np.asarray(jax.nn.softmax(logits[0], axis=-1))
            kept = case.groups["target_mask"][q, k] > 0
            expected = entropy(p, axis=-1)[kept].mean()
            assert float(answers.token_entropies[q, k]) == pytest.approx(expected, rel=1e-12)


def test_gradnorm_equals_autodiff_of_the_divergence_from_uniform():
    case = make_case(9, 2, 4)
    values = evaluate_scores(answers_of(case)[0])
    for question in range(2):

        def divergence(params, question=question):
            p = probabilities(case, question, params, False)[1]
            return jnp.sum(jnp.log(1 / p.size / p)) / p.size

        gradient = jax.jit(jax.grad(divergence))(case.params)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(values["gradnorm"][question], jnp.log(norm), atol=1e-10)


def test_gradnorm_of_equally_likely_answers_is_zero():
    case = make_case(10, 1, 2)
    answers = answers_of(case)[0]._replace(log_likelihoods=jnp.full((1, 2), -3.0))
    assert np.isneginf(evaluate_scores(answers)["gradnorm"]).all()
