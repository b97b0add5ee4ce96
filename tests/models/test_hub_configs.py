"""What config files of the hub leave out, say twice or carry along, read as transformers does."""

import numpy as np
import pytest

from fishjax import models
from fishjax.models import CheckpointError

from . import hub


def config_of(name, without=(), **changes):
    values = hub.fixture(name)["config"] | changes
    return models.config_from_json({k: v for k, v in values.items() if k not in without})[0]


# by the classes of transformers 5.23
DEFAULTS = [
    ("mistral", "sliding_window", 4096),
    ("gemma2", "sliding_window", 4096),
    ("gemma3", "sliding_window", 4096),
    ("qwen2_window", "sliding_window", 4096),
    ("gemma2", "attn_logit_softcapping", 50.0),
    ("gemma2", "final_logit_softcapping", 30.0),
    ("gemma3", "final_logit_softcapping", None),
]


@pytest.mark.parametrize(("name", "key", "default"), DEFAULTS)
def test_a_missing_key_means_the_default_of_the_class(name, key, default):
    assert config_of(name, without=(key,)) == config_of(name, **{key: default})


def test_windows_of_qwen_begin_at_layer_28():
    changes = dict(num_hidden_layers=30, use_sliding_window=True, sliding_window=4)
    config = config_of("qwen2", without=("layer_types", "max_window_layers"), **changes)
    assert config.windows == (None,) * 28 + (4, 4)


@pytest.mark.parametrize(
    ("name", "key", "default"),
    [("gemma3", "_sliding_window_pattern", 6), ("qwen3_window", "max_window_layers", 28)],
)
def test_layer_types_stand_beside_the_default_that_is_always_written(name, key, default):
    count = config_of(name).num_layers
    types = ["full_attention"] * (count - 1) + ["sliding_attention"]
    both = {"layer_types": types, "sliding_window": 4}
    config = config_of(name, without=("sliding_window_pattern",), **both, **{key: default})
    assert config.windows == (None,) * (count - 1) + (4,)
    if key == "max_window_layers":
        with pytest.raises(CheckpointError, match="the layers that max_window_layers says"):
            config_of(name, **both, **{key: 1})
    with pytest.raises(CheckpointError, match=r"layer_types is .*: expected a list of full"):
        config_of(name, **both | {"layer_types": [["full_attention"]] * count})


def rope(**parameters):
    return {"rope_parameters": {"rope_type": "default", **parameters}}


def test_a_base_outside_rope_parameters_counts():
    inside, outside = rope(rope_theta=321.0), rope() | {"rope_theta": 321.0}
    assert config_of("llama", **inside) == config_of("llama", **outside)
    assert config_of("llama", **outside).rotary.theta == 321.0


REFUSED_ROTATIONS = [
    ("llama", rope(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5: expected 1.0"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: expected 1.0"),
    ("gpt_neox", {"rotary_pct": 0.5}, "rotary_pct is 0.5: expected 0.25"),
    ("gpt_neox", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: expected 0.25"),
    ("gemma3", rope(rope_theta=500.0), "expected an object for full_attention and sliding"),
    (
        "llama",
        rope(rope_type="llama3", factor=8.0, low_freq_factor=4.0, high_freq_factor=4.0,
             original_max_position_embeddings=8),
        "rotary high is 4.0 and low 4.0: expected high above low",
    ),
    (
        "llama",
        rope(rope_type="yarn", factor=8.0, rope_theta=1.0),
        "rotary theta is 1.0: yarn needs one above 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED_ROTATIONS)
def test_rotations_that_transformers_does_not_compute_are_refused(name, changes, message):
    with pytest.raises(CheckpointError, match=message):
        config_of(name, **changes)


def test_fractions_told_twice_agree():
    """As transformers 4.46 to 4.57 wrote GPT-NeoX."""
    old = dict(rotary_pct=0.5, partial_rotary_factor=0.5, rotary_emb_base=700, rope_theta=700)
    found = config_of("gpt_neox", without=("rope_parameters",), **old)
    assert (found.rotary.fraction, found.rotary.theta) == (0.5, 700.0)
    assert config_of("llama", partial_rotary_factor=1.0) == config_of("llama")


# GPT-2 medium to XL, DistilGPT-2, GPT-NeoX-20B, and dumps of `config.to_dict()` of transformers 4
CARRIED = {
    "gpt2": dict(n_special=0, predict_special_tokens=True, output_past=True, _num_labels=1),
    "gpt_neox": dict(attention_probs_dropout_prob=0, hidden_dropout_prob=0, tokenizer_class="X"),
    "llama": dict(
        max_sequence_length=32, temperature=0.7, do_sample=True, pruned_heads={}, prefix=None,
        add_cross_attention=False, tie_encoder_decoder=False, cross_attention_hidden_size=None,
    ),
    "mistral": dict(attention_bias=False),
}  # fmt: skip


@pytest.mark.parametrize("name", CARRIED)
def test_keys_that_old_files_carry_along(name):
    assert config_of(name, **CARRIED[name]) == config_of(name)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"add_cross_attention": True}),
        ("llama", {"pruned_heads": {"0": [1]}}),
        ("mistral", {"attention_bias": True}),
        ("gemma3", {"attn_logit_softcapping": 3.0}),
    ],
)
def test_keys_of_another_architecture_are_refused(name, changes):
    (key,) = changes
    with pytest.raises(CheckpointError, match=f"{key} is .*: expected .* other values are not"):
        config_of(name, **changes)


def test_a_head_beside_a_tied_embedding_has_to_be_the_same(tmp_path):
    tensors = hub.tensors_of("llama")
    embedding = tensors["model.embed_tokens.weight"]
    same = hub.write(tmp_path / "a", "llama", tensors=tensors | {"lm_head.weight": embedding})
    assert models.load(same).config.tied
    for head in (embedding + np.float32(1e-6), embedding[1:]):
        other = hub.write(tmp_path / "b", "llama", tensors=tensors | {"lm_head.weight": head})
        with pytest.raises(CheckpointError, match=r"'lm_head.weight' differ.*set tie_word"):
            models.load(other)
