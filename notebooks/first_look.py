# %% [markdown]
# # A first look at fishjax
# Exact per-example gradient geometry of a plain JAX function, in four steps. Runs offline.
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
import jax
import jax.numpy as jnp

from fishjax import capture, gradients


def log_prob(params, batch):
    """Log-probability of each example's label under a two-layer network."""
    hidden = jnp.tanh(batch["x"] @ params["w1"] + params["b1"])
    log_probs = jax.nn.log_softmax(hidden @ params["w2"])
    return jnp.take_along_axis(log_probs, batch["y"][:, None], axis=1)[:, 0]


keys = jax.random.split(jax.random.key(0), 3)
params = {
    "w1": 0.5 * jax.random.normal(keys[0], (4, 8)),
    "b1": jnp.zeros(8),
    "w2": 0.5 * jax.random.normal(keys[1], (8, 3)),
}
batch = {"x": jax.random.normal(keys[2], (6, 4)), "y": jnp.array([0, 1, 2, 0, 1, 2])}

# %% [markdown]
# ## Where does each parameter enter?
# Nothing is computed yet: the report is made from an abstract trace.

# %%
print(capture.uses(log_prob, params, batch))

# %% [markdown]
# ## How much would each prediction move?
# `epistemic` is the squared gradient norm of the probability, `p^2 |grad log p|^2`.

# %%
log_p, norms = jax.jit(gradients.squared_norms(log_prob))(params, batch)
p = jnp.exp(log_p)
for row in zip(p, p**2 * norms.total, p * (1 - p), strict=True):
    print("p {:.3f}  epistemic {:.4f}  aleatoric {:.4f}".format(*map(float, row)))

# %% [markdown]
# ## Which examples pull the weights the same way?
# The empirical tangent kernel, from the same Gram matrices: no weight's gradient is formed.

# %%
kernel = gradients.inner_products(log_prob)(params, batch, batch)
for row in kernel:
    print(" ".join(f"{float(value):6.2f}" for value in row))

# %% [markdown]
# ## A statistic of your own
# The gradient noise scale (McCandlish et al. 2018) needs the mean squared gradient norm and the
# squared norm of the mean gradient, from the same backward pass.


# %%
def noise_terms(gradient):
    dense = gradient.materialise().reshape(gradient.num_examples, -1)
    return jnp.stack([jnp.mean(jnp.sum(dense**2, axis=1)), jnp.sum(jnp.mean(dense, axis=0) ** 2)])


_, terms = capture.sitewise(log_prob, noise_terms)(params, batch)
mean_square, square_mean = sum(terms.values())
print(f"gradient noise scale {float((mean_square - square_mean) / square_mean):.2f}")
