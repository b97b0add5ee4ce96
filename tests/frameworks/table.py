"""The table of models: (framework, model) -> builder of (fn, params, batch), all float64.

Each framework's file states the same models in that framework's own words. Parameters are not
initialised but drawn here: initialisers would compile one program a parameter, and zero biases
would hide mistakes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..gradients.cases import normal, tokens

N, T, D, V, HEADS, CLASSES, EXPERTS, LAYERS = 3, 4, 4, 7, 2, 3, 3, 2


def registry():
    """A table of builders by model name, and the decorator that fills it."""
    cases = {}

    def case(build):
        assert build.__name__ not in cases
        cases[build.__name__] = build
        return build

    return cases, case


def drawn(shapes):
    """A tree of random values shaped like a tree of arrays or shapes."""
    leaves, treedef = jax.tree.flatten(shapes)
    values = [normal(100 + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    # a shift away from zero keeps norms' scales and the signals behind them of order one
    return jax.tree.unflatten(treedef, [v + 0.5 if v.ndim == 1 else v for v in values])


def labels():
    return jnp.asarray(np.arange(N) % CLASSES)


def vectors():
    return dict(x=normal(1, N, D, scale=1.0), label=labels())


def sequences():
    return dict(x=normal(2, N, T, D, scale=1.0), label=labels())


def images():
    return dict(x=normal(3, N, 6, 5, 2, scale=1.0), label=labels())


def sentences():
    """Token ids with repetitions, and a label; the last example ends in padding (id 0)."""
    ids = 1 + np.asarray(tokens(4, (N, T), V - 1))
    ids[-1, -1:] = 0
    return dict(ids=jnp.asarray(ids), label=labels())


def pairs():
    """Source and target sentences."""
    return dict(source=tokens(5, (N, 3), V), target=tokens(6, (N, T), V))


def log_softmax(logits):
    """In float32 or wider, whatever the model's dtype."""
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def class_log_prob(logits, batch):
    """The log-probability of the label, `[N]`."""
    return jnp.take_along_axis(log_softmax(logits), batch["label"][:, None], -1)[:, 0]


def next_log_prob(logits, ids):
    """The log-probability of every token after the first, `[N]`."""
    log_probs = log_softmax(logits[:, :-1])
    return jnp.take_along_axis(log_probs, ids[:, 1:, None], -1)[..., 0].sum(-1)


def one_expert(gate):
    """Top-1 routing: the gate's largest entry, zero elsewhere; every token for itself."""
    return gate * jax.nn.one_hot(gate.argmax(-1), gate.shape[-1], dtype=gate.dtype)
