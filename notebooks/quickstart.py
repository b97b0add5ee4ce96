# %% [markdown]
# # fishjax in ten minutes
# From questions to uncertainties, offline, on the model that fishjax brings along.
#
# In Colab, first make a wheel (`pip wheel --no-deps .` in the repository) and drop it into the file
# browser on the left. The next cell installs it where fishjax is missing, and leaves Colab's JAX
# and NumPy as they are (`make colab` checks that).

# %%
import glob
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("fishjax") is None:
    wheels = glob.glob("fishjax-*.whl")
    if not wheels:
        raise FileNotFoundError("no fishjax-*.whl in this folder: expected the wheel, upload it")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"{wheels[0]}[plots,frames]"], check=True)

# %%
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp

import fishjax
from fishjax import capture, estimators, gradients, models, operators, runs
from fishjax.estimators import targets
from fishjax.likelihoods import Categorical, Examples

world = pathlib.Path(fishjax.__file__).parent / "bundled" / "world"
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## A model is a pure function and its parameters
# A Hugging Face directory loads the same way.

# %%
model = models.load(world)
print(model.config)
print(f"{sum(leaf.size for leaf in jax.tree.leaves(model.params)):,} parameters")

# %% [markdown]
# ## Questions are lines of JSON
# A few of the bundled ones; yours look the same.

# %%
lines = (world / "conflict_4.jsonl").read_text().splitlines()[:40]
questions = folder / "questions.jsonl"
questions.write_text("\n".join(lines) + "\n")
print(json.dumps(json.loads(lines[0]), indent=1))

# %% [markdown]
# ## Score them
# The same as `fishjax score --model ... --task multiple_choice --data questions.jsonl --out run`.
# A run that is killed goes on where it was.

# %%
directory = runs.score(
    model=world, task="multiple_choice", data=questions, out=folder / "run", quiet=True
)
frame = runs.open_frame(directory)
columns = ["id", "correct", "scores.epistemic", "scores.aleatoric", "scores.maximum_probability"]
print(frame[columns].head(8).to_string())

# %% [markdown]
# ## What stands behind the number
# The squared norm of every answer's gradient, exactly. The report says how each parameter is
# covered: by a Gram matrix no gradient is formed; *materialised* ones are small enough to be.


# %%
def log_likelihood(params, ids):
    """Log-probability of each sequence."""
    log_probs = jax.nn.log_softmax(model.apply_fn(params, ids)[:, :-1])
    return jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0].sum(axis=-1)


first = json.loads(lines[0])
texts = [f"{first['question']} {choice}" for choice in first["choices"]]
encoded = [model.tokenizer.encode(text, bos=model.adds_bos) for text in texts]
length = min(map(len, encoded))
ids = jnp.array([row[:length] for row in encoded])
print(capture.uses(log_likelihood, model.params, ids))
log_p, norms = jax.jit(gradients.squared_norms(log_likelihood))(model.params, ids)
print(norms.total)

# %% [markdown]
# ## Curvature
# K-FAC of the attention queries on these sequences, then the variance that a Gaussian posterior
# with that precision (plus 1e-2) gives each log-likelihood: the Laplace approximation in two lines.

# %%
fisher = estimators.kfac(
    lambda params, ids: model.apply_fn(params, ids[:, :-1]),
    Categorical(),
    targets=targets.sampled(4),
    parameters="attention/query",
)
examples = Examples(ids)
state = fisher.update(
    fisher.init(model.params, examples), model.params, examples, jax.random.key(0)
)
covariance = operators.power(fisher.finalize(state), -1, damping=1e-2)
_, variance = gradients.squared_norms(
    log_likelihood, covariance=covariance, parameters="attention/query"
)(model.params, ids)
print(variance.total)
