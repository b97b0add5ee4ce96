"""What the suite's own checks of annotations refuse."""

import beartype.roar
import jax.numpy as jnp
import jaxtyping
import pytest

from fishjax import metrics, trees
from fishjax.tasks.classification import SST2, class_reader


def test_dimensions_are_compared():
    with pytest.raises(jaxtyping.TypeCheckError, match="auroc"):
        metrics.auroc(jnp.ones(3), jnp.ones(4, bool))


@pytest.mark.parametrize(
    "call",
    [lambda: trees.path_string(3.5), lambda: class_reader(SST2)("a/path")],
    ids=["function", "closure"],
)
def test_other_types_are_compared(call):
    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
        call()
