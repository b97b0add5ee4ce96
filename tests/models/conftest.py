import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax.models import DecoderConfig, decoder_apply_fn, init_params

CONFIGS = {
    "grouped_tied": DecoderConfig(
        vocab_size=13, width=16, hidden_width=20, num_layers=3, num_heads=4, num_kv_heads=2,
        context_length=12,
    ),
    "one_kv_head_untied": DecoderConfig(
        vocab_size=11, width=12, hidden_width=8, num_layers=2, num_heads=3, num_kv_heads=1,
        context_length=12, tied=False,
    ),
}  # fmt: skip


@pytest.fixture(scope="session", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="session")
def params(config):
    """NumPy numbers in the shapes of `init_params`: drawing them there takes seconds to compile."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))

    def draw(path, leaf):
        numbers = rng.normal(size=leaf.shape) * config.width**-0.5
        return jnp.asarray(numbers + ("norm" in jax.tree_util.keystr(path)), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def apply_fn(config):
    """Compiled once per shape for the whole session."""
    return jax.jit(decoder_apply_fn(config))


@pytest.fixture(scope="session")
def oracle():
    """The NumPy decoder and encoder of numpy_llama.py."""
    path = pathlib.Path(__file__).with_name("numpy_llama.py")
    spec = importlib.util.spec_from_file_location("numpy_llama", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
