"""Hugging Face directories: logits of transformers, every key, damaged files, export."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from fishjax import models
from fishjax.models import CheckpointError

from . import hub

PARITY = 1e-4


def logits_of(directory, name, **options):
    found = hub.fixture(name)
    model = models.load(directory, **options)
    apply_fn = jax.jit(model.apply_fn)
    return np.asarray(apply_fn(model.params, found["tokens"], None, found["mask"]))


@pytest.mark.parametrize("name", hub.NAMES)
def test_logits_equal_transformers(tmp_path, name):
    found = hub.fixture(name)
    logits = logits_of(hub.write(tmp_path / "m", name), name)
    assert logits.dtype == np.float32
    worst = np.abs(logits - found["logits"])[found["mask"]].max()
    assert worst <= PARITY, worst
    assert np.abs(found["logits"][found["mask"]]).std() > 0.1


def test_every_family_has_fixtures():
    kinds = {hub.fixture(name)["config"]["model_type"] for name in hub.NAMES}
    assert kinds == set(models.families.FAMILIES)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_right_padding_needs_no_mask(tmp_path, name):
    found = hub.fixture(name)
    model = models.load(hub.write(tmp_path / "m", name))
    start = int(np.argmax(found["mask"][1]))
    tokens = np.pad(found["tokens"][1:2, start:], ((0, 0), (0, start)))
    logits = jax.jit(model.apply_fn)(model.params, tokens)[0, : -start or None]
    np.testing.assert_allclose(logits, found["logits"][1, start:], atol=PARITY)


def mutations(key, value):
    """Other values of a key: `(name, value)`."""
    if isinstance(value, dict):
        for inner, old in value.items():
            for name, new in mutations(inner, old):
                yield f"{key}/{name}", value | {inner: new}
    elif isinstance(value, bool):
        yield key, not value
    elif isinstance(value, list):
        kinds = {"full_attention": "sliding_attention", "sliding_attention": "full_attention"}
        yield key, [kinds[value[0]], *value[1:]]
    elif isinstance(value, int):
        yield key, value + 3
    elif isinstance(value, float):
        yield key, 3 * value if value > 0.5 else 0.5 + value
    elif isinstance(value, str):
        yield key, "relu" if value != "relu" else "gelu"


def used_keys(name):
    """`{mutation: the changed config.json}` of the keys that the family reads."""
    config = hub.fixture(name)["config"]
    keys = models.config_keys.ConfigKeys(config, "config.json")
    models.families.family_of(keys).config(keys)
    for key in sorted(keys.used & {k for k, v in config.items() if v is not None}):
        yield from mutations(key, config[key])


FAMILY_NAMES = sorted(models.families.FAMILIES)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_used_key_matters(tmp_path, family):
    """Changed alone, a key changes the logits or the limits, or the model is refused."""
    names = [n for n in hub.NAMES if hub.fixture(n)["config"]["model_type"] == family]
    moved = {}
    for name in names:
        directory = hub.write(tmp_path / name, name)
        found, original = hub.fixture(name), hub.fixture(name)["config"]
        context = models.config_from_json(original)[0].context_length
        for mutation, value in used_keys(name):
            key = mutation.split("/")[0]
            if moved.get(mutation, 0) > 1e-3:
                continue
            hub.write(directory, name, config={key: value}, tensors={})
            save_file(hub.tensors_of(name), directory / "model.safetensors")
            try:
                changed = models.config_from_json(original | {key: value})[0]
                if changed.context_length != context:
                    moved[mutation] = np.inf
                    continue
                logits = logits_of(directory, name)
            except (CheckpointError, ValueError):
                moved[mutation] = np.inf
                continue
            difference = np.abs(logits - found["logits"])[found["mask"]].max()
            moved[mutation] = max(moved.get(mutation, 0), difference)
    assert len(moved) >= 10
    assert {m: d for m, d in moved.items() if not d > 1e-3} == {}


@pytest.mark.parametrize("name", hub.NAMES)
def test_export_reads_back_as_the_same_bits(tmp_path, name):
    model = models.load(hub.write(tmp_path / "m", name, shards=2))
    models.save_huggingface(tmp_path / "out", model)
    again = load_file(tmp_path / "out" / "model.safetensors")
    expected = hub.tensors_of(name)
    if model.config.tied:
        expected = {n: t for n, t in expected.items() if n != "lm_head.weight"}
    assert again.keys() == expected.keys()
    for tensor, array in expected.items():
        np.testing.assert_array_equal(again[tensor], array, err_msg=tensor)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == model.source
    with pytest.raises(CheckpointError, match="is not empty"):
        models.save_huggingface(tmp_path / "out", model)


def test_names_without_the_prefix_and_buffers(tmp_path):
    """As GPT-2 was published."""
    tensors = {n.removeprefix("transformer."): t for n, t in hub.tensors_of("gpt2").items()}
    tensors["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
    directory = hub.write(tmp_path / "m", "gpt2", tensors=tensors)
    found = hub.fixture("gpt2")
    worst = np.abs(logits_of(directory, "gpt2") - found["logits"])[found["mask"]].max()
    assert worst <= PARITY


def test_half_precision_files(tmp_path):
    halves = {
        n: np.asarray(jnp.asarray(t, jnp.bfloat16)) for n, t in hub.tensors_of("llama").items()
    }
    directory = hub.write(tmp_path / "m", "llama", tensors=halves)
    wide, kept = models.load(directory), models.load(directory, param_dtype=None)
    assert {x.dtype for x in jax.tree.leaves(wide.params)} == {np.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(kept.params)} == {jnp.dtype("bfloat16")}
    for a, b in zip(jax.tree.leaves(wide.params), jax.tree.leaves(kept.params), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b, np.float32))


def without(tensors, *names):
    return {name: tensor for name, tensor in tensors.items() if name not in names}


BAD_TENSORS = {
    "lacks": (lambda t: without(t, "model.norm.weight"), "lack model.norm.weight"),
    "extra": (lambda t: t | {"model.adapter": np.ones(2, np.float32)}, "have model.adapter"),
    "shape": (
        lambda t: t | {"model.norm.weight": np.ones(3, np.float32)},
        r"'model.norm.weight' has shape \(3,\): expected \(16,\)",
    ),
    "nan": (
        lambda t: t | {"model.norm.weight": np.full(16, np.nan, np.float32)},
        "16 values of tensor 'model.norm.weight' are NaN",
    ),
    "int8": (
        lambda t: t | {"model.norm.weight": np.ones(16, np.int8)},
        "has dtype I8: expected F64, F32, F16, BF16",
    ),
}


@pytest.mark.parametrize("bad", BAD_TENSORS)
def test_wrong_tensors_are_refused(tmp_path, bad):
    change, message = BAD_TENSORS[bad]
    hub.write(tmp_path / "m", "llama", tensors=change(hub.tensors_of("llama")))
    with pytest.raises(CheckpointError, match=message):
        models.load(tmp_path / "m")


def test_floats_of_eight_bits_are_refused(tmp_path):
    """NumPy has no such dtype."""
    tensors = hub.tensors_of("llama") | {"model.norm.weight": np.ones(16, np.int8)}
    file = hub.write(tmp_path / "m", "llama", tensors=tensors) / "model.safetensors"
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(b'"I8"', b'"F8_E4M3"')
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' has dtype F8_E4M3"):
        models.load(tmp_path / "m")


BAD_CONFIGS = {
    "unknown key": (dict(new_trick=1), "keys that this version does not know: new_trick"),
    "quantised": (dict(quantization_config={}), "does not know: quantization_config"),
    "remote code": (dict(auto_map={}), "does not know: auto_map"),
    "family": (dict(model_type="mamba"), "model_type is 'mamba': expected one of gpt2"),
    "no family": (dict(model_type=["llama"]), r"model_type is \['llama'\]: expected one of gpt2"),
    "missing": (dict(hidden_size=hub.REMOVED), "lacks hidden_size"),
    "text": (dict(hidden_size="16"), "hidden_size is '16': expected a positive integer"),
    "zero": (dict(num_hidden_layers=0), "num_hidden_layers is 0"),
    "many layers": (dict(num_hidden_layers=10**30), "num_hidden_layers is 10{30}.*at most 10000"),
    "bool": (dict(attention_bias="yes"), "attention_bias is 'yes': expected true or false"),
    "activation": (dict(hidden_act="mish"), "hidden_act is 'mish': expected one of silu"),
    "heads": (dict(num_key_value_heads=3), "not a multiple of num_kv_heads 3"),
    "nan": (dict(rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
    "rope": (
        dict(rope_parameters=hub.REMOVED, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
        "rope_type is 'dynamic': expected one of default, linear, llama3, yarn",
    ),
    "rope key": (
        dict(
            rope_parameters=hub.REMOVED,
            rope_scaling=dict(rope_type="linear", factor=2.0, mrope_section=[1]),
        ),
        "rope_scaling has keys that this version does not know: mrope_section",
    ),
}


@pytest.mark.parametrize("bad", BAD_CONFIGS)
def test_wrong_configs_are_refused(tmp_path, bad):
    change, message = BAD_CONFIGS[bad]
    with pytest.raises(CheckpointError, match=message):
        models.load(hub.write(tmp_path / "m", "llama", config=change))


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    directory = hub.write(tmp_path / "model", "llama")
    count = models.load(directory).config.vocab_size
    words = {f"w{i}": i for i in range(count + 5)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.save(str(directory / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=f"has {count + 5} tokens, the model {count}: put"):
        models.load(directory)


def test_damaged_files_are_refused(tmp_path):
    directory = hub.write(tmp_path / "m", "llama", shards=3)
    shard = directory / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    for kept in (0, 5, 100, len(whole) - 1):
        shard.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match=r"00003\.safetensors cannot be read"):
            models.load(directory)
    shard.unlink()
    with pytest.raises(CheckpointError, match="lacks the shard model-00002"):
        models.load(directory)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="expected a plain file name"):
        models.load(directory)
    index.write_text("{")
    with pytest.raises(CheckpointError, match="no weight_map"):
        models.load(directory)
    index.unlink()
    (directory / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(CheckpointError, match="are never read; convert them to safetensors"):
        models.load(directory)
    (directory / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is a list: expected a JSON object"):
        models.load(directory)


SCALING = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8,
)


def test_old_and_new_spellings_are_one(tmp_path):
    base = hub.fixture("llama_llama3")["config"]
    base = {k: v for k, v in base.items() if not k.startswith("rope_")}
    spellings = [
        dict(rope_theta=500.0, rope_scaling=SCALING),
        dict(rope_theta=500, rope_scaling=without(SCALING, "rope_type") | {"type": "llama3"}),
        dict(rope_parameters=SCALING | dict(rope_theta=500.0)),
        dict(rope_parameters=SCALING | dict(rope_theta=500.0), rope_theta=500.0),
    ]
    found = {models.config_from_json(base | spelling)[0] for spelling in spellings}
    assert len(found) == 1
    with pytest.raises(CheckpointError, match="rope_theta is 400"):
        models.config_from_json(base | spellings[2] | dict(rope_theta=400.0))


PUBLISHED = {
    "gpt2": 124_439_808, "pythia-70m": 70_426_624, "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248, "llama-3.2-1b": 1_235_814_400, "tinyllama-1.1b": 1_100_048_384,
    "smollm2-135m": 134_515_008, "mistral-7b-v0.1": 7_241_732_096, "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920, "gemma-2-2b": 2_614_341_888, "gemma-3-1b": 999_885_952,
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(shared_data, name):
    values = json.loads((shared_data / "configs" / name / "config.json").read_text())
    config, _ = models.config_from_json(values)
    params = jax.eval_shape(lambda key: models.init_params(config, key), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[name]
    apply_fn = models.decoder_apply_fn(config)
    logits = jax.eval_shape(apply_fn, params, jax.ShapeDtypeStruct((2, 5), jnp.int32))
    assert logits.shape == (2, 5, values["vocab_size"])
