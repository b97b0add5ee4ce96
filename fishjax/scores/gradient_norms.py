r"""Scores from the gradient of a probability: epistemic, aleatoric and scale-free, four times.

Each exists for the choice-normalised probability (no prefix), the raw sequence probability
(`sequence_`), its geometric mean per token (`normalised_sequence_`) and the softmax of the
length-normalised log-likelihoods (`normalised_choice_`). All return natural logarithms, since
the values themselves underflow: a 200-token answer has $\log p \approx -800$. `-inf` is an exact
zero, NaN is undefined.

References:
  Grünefeld, Frellsen and Hardmeier (2026), arXiv 2603.29466.
"""

import math

from jaxtyping import Array, Float

from fishjax.scores import uncertainty
from fishjax.scores.answers import Answers
from fishjax.scores.score import Direction, Score

__all__ = [
    "GRADIENT_SCORES",
    "aleatoric",
    "combined",
    "epistemic",
    "normalised_choice_aleatoric",
    "normalised_choice_epistemic",
    "normalised_choice_scale_free",
    "normalised_sequence_aleatoric",
    "normalised_sequence_epistemic",
    "normalised_sequence_scale_free",
    "scale_free",
    "sequence_aleatoric",
    "sequence_epistemic",
    "sequence_scale_free",
]


def epistemic(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla p_k\|^2$, the variance of $p_k$ under unit isotropic weight noise.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit
    weight variance.
    """
    return uncertainty.of_choice(answers).log_epistemic


def aleatoric(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $p_k(1 - p_k)$, the variance of "answer k is drawn".

    Direction: higher is more uncertain. Range: [0, 1/4]. Unit: probability².
    """
    return uncertainty.of_choice(answers).log_aleatoric


def scale_free(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla p_k\|^2 / (p_k(1 - p_k))^2 = \|\nabla\operatorname{logit} p_k\|^2$.

    Free of the factor by which every epistemic score follows the aleatoric one.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: nats² per unit weight
    variance. NaN with a single answer, which has no odds.
    """
    return uncertainty.of_choice(answers).log_scale_free


def combined(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\sqrt{\|\nabla p_k\|^2 \, p_k(1 - p_k)}$: fixed equal weights on both logarithms.

    A sum of the two variances would depend on the unknown weight variance; the ranking by
    their geometric mean does not.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit weight
    standard deviation.
    """
    both = uncertainty.of_choice(answers)
    return 0.5 * (both.log_epistemic + both.log_aleatoric)


def sequence_epistemic(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla e^{\ell}\|^2 = e^{2\ell} C_{kk}$, raw sequence probability.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit
    weight variance.
    """
    return uncertainty.of_sequence(answers).log_epistemic


def sequence_aleatoric(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $e^{\ell}(1 - e^{\ell})$.

    Direction: higher is more uncertain. Range: [0, 1/4]. Unit: probability².
    """
    return uncertainty.of_sequence(answers).log_aleatoric


def sequence_scale_free(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $C_{kk} / (1 - e^{\ell})^2$, squared norm of the sequence's log-odds gradient.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: nats² per unit weight
    variance. NaN where the sequence has probability 1.
    """
    return uncertainty.of_sequence(answers).log_scale_free


def normalised_sequence_epistemic(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla \tilde p\|^2 = \tilde p^2 C_{kk} / L^2$ with $\tilde p = e^{\ell/L}$.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit
    weight variance.
    """
    return uncertainty.of_normalised_sequence(answers).log_epistemic


def normalised_sequence_aleatoric(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\tilde p(1 - \tilde p)$ with $\tilde p = e^{\ell/L}$.

    Direction: higher is more uncertain. Range: [0, 1/4]. Unit: probability².
    """
    return uncertainty.of_normalised_sequence(answers).log_aleatoric


def normalised_sequence_scale_free(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $C_{kk} / (L (1 - \tilde p))^2$.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: nats² per unit weight
    variance. NaN where the sequence has probability 1.
    """
    return uncertainty.of_normalised_sequence(answers).log_scale_free


def normalised_choice_epistemic(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla p_k\|^2$ for $p$ the softmax of $\ell_k / L_k$.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: probability² per unit
    weight variance.
    """
    return uncertainty.of_normalised_choice(answers).log_epistemic


def normalised_choice_aleatoric(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $p_k(1 - p_k)$ for $p$ the softmax of $\ell_k / L_k$.

    Direction: higher is more uncertain. Range: [0, 1/4]. Unit: probability².
    """
    return uncertainty.of_normalised_choice(answers).log_aleatoric


def normalised_choice_scale_free(answers: Answers) -> Float[Array, "Q K"]:
    r"""Log of $\|\nabla\operatorname{logit} p_k\|^2$ for $p$ the softmax of $\ell_k / L_k$.

    Direction: higher is more uncertain. Range: $[0, \infty)$. Unit: nats² per unit weight
    variance. NaN with a single answer.
    """
    return uncertainty.of_normalised_choice(answers).log_scale_free


_P2, _NATS2, _PROBABILITY2 = "probability²/weight²", "nats²/weight²", "probability²"
_UP = Direction.UNCERTAIN

GRADIENT_SCORES: tuple[Score, ...] = (
    Score("epistemic", epistemic, _UP, 0.0, math.inf, _P2, True, compares=True),
    Score("aleatoric", aleatoric, _UP, 0.0, 0.25, _PROBABILITY2, True, compares=True),
    Score("scale_free", scale_free, _UP, 0.0, math.inf, _NATS2, True, compares=True),
    Score("combined", combined, _UP, 0.0, math.inf, "probability²/weight", True, compares=True),
    Score("sequence_epistemic", sequence_epistemic, _UP, 0.0, math.inf, _P2, True),
    Score("sequence_aleatoric", sequence_aleatoric, _UP, 0.0, 0.25, _PROBABILITY2, True),
    Score("sequence_scale_free", sequence_scale_free, _UP, 0.0, math.inf, _NATS2, True),
    Score(
        "normalised_sequence_epistemic",
        normalised_sequence_epistemic, _UP, 0.0, math.inf, _P2, True,
    ),
    Score(
        "normalised_sequence_aleatoric",
        normalised_sequence_aleatoric, _UP, 0.0, 0.25, _PROBABILITY2, True,
    ),
    Score(
        "normalised_sequence_scale_free",
        normalised_sequence_scale_free, _UP, 0.0, math.inf, _NATS2, True,
    ),
    Score(
        "normalised_choice_epistemic",
        normalised_choice_epistemic, _UP, 0.0, math.inf, _P2, True, compares=True,
    ),
    Score(
        "normalised_choice_aleatoric",
        normalised_choice_aleatoric, _UP, 0.0, 0.25, _PROBABILITY2, True, compares=True,
    ),
    Score(
        "normalised_choice_scale_free",
        normalised_choice_scale_free, _UP, 0.0, math.inf, _NATS2, True, compares=True,
    ),
)  # fmt: skip
