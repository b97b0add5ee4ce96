"""Adapters of PEFT: logits of PEFT itself, every key, round trips, fused modules, damaged files."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.oracles.hub_weights import draw_all
from fishjax import models
from fishjax.models import CheckpointError, LoraConfig

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "peft"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
PARITY = 1e-4


@functools.cache
def fixture(name):
    return json.loads((FIXTURES / f"{name}.json").read_text())


def write_base(directory, name):
    found = fixture(name)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(found["config"]))
    save_file(draw_all(found["tensors"], found["gain"]), directory / "model.safetensors")
    return directory


def write_adapter(directory, name, tensors=None, **changes):
    found = fixture(name)
    directory.mkdir(parents=True, exist_ok=True)
    values = {k: v for k, v in (found["adapter_config"] | changes).items() if v is not REMOVED}
    (directory / "adapter_config.json").write_text(json.dumps(values))
    if tensors is None:
        tensors = draw_all(found["adapter_tensors"], found["adapter_gain"])
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


REMOVED = object()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Name to model, each loaded once."""
    folder = tmp_path_factory.mktemp("base")
    return functools.cache(lambda name: models.load(write_base(folder / name, name)))


@pytest.fixture(scope="module")
def logits_of():
    """Compiled once for every architecture."""
    compiled = functools.cache(lambda config: jax.jit(models.decoder_apply_fn(config)))
    return lambda model, tokens: np.asarray(
        compiled(model.config)(model.params, np.asarray(tokens))
    )


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_peft(name, base, logits_of, tmp_path):
    found, model = fixture(name), base(name)
    lora, adapters = models.load_adapter(write_adapter(tmp_path / "a", name), model)
    tuned = models.adapted(model, lora, adapters)
    logits = logits_of(tuned, found["tokens"])
    np.testing.assert_allclose(logits, found["adapter_logits"], atol=PARITY)
    moved = np.abs(np.subtract(found["adapter_logits"], found["logits"])).max()
    assert moved > 0.3
    merged = models.merged(tuned)
    np.testing.assert_allclose(
        logits_of(merged, found["tokens"]), found["adapter_logits"], atol=PARITY
    )


def test_every_kind_of_case_is_there():
    assert {fixture(name)["config"]["model_type"] for name in NAMES} >= {
        "llama",
        "gpt2",
        "gpt_neox",
    }


@pytest.mark.parametrize("name", NAMES)
def test_written_adapters_are_those_of_peft(name, base, tmp_path):
    """Where A is shared in fused modules, even byte by byte; ranks that differ are filled up."""
    model = base(name)
    lora, adapters = models.load_adapter(write_adapter(tmp_path / "a", name), model)
    models.save_adapter(tmp_path / "out", adapters, lora, model)
    again = models.load_adapter(tmp_path / "out", model)
    assert again[0] == lora
    jax.tree.map(np.testing.assert_array_equal, again[1], adapters)
    if not fixture(name)["adapter_config"]["rank_pattern"]:
        written = load_file(tmp_path / "out" / "adapter_model.safetensors")
        expected = load_file(tmp_path / "a" / "adapter_model.safetensors")
        assert written.keys() == expected.keys()
        for tensor, array in expected.items():
            np.testing.assert_array_equal(written[tensor], array, err_msg=tensor)
    values = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert values.keys() <= fixture(name)["adapter_config"].keys()
    with pytest.raises(CheckpointError, match="is not empty"):
        models.save_adapter(tmp_path / "out", adapters, lora, model)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    "targets", [("attention/*",), ("attention/key", "mlp/*"), ("query", "value")]
)
def test_fused_modules_with_adapters_of_their_own(name, targets, stabilised, base, tmp_path):
    """Three A become one of three times the rank, with the same product of B and A."""
    model = base(name)
    lora = LoraConfig(2, 3.0, targets, 0.1, stabilised)
    adapters = drawn(model, lora)
    models.save_adapter(tmp_path / "out", adapters, lora, model)
    found, read = models.load_adapter(tmp_path / "out", model)
    assert found.rank == (6 if "attention/*" in targets else 4 if "query" in targets else 2)
    assert found.scale == pytest.approx(lora.scale)
    assert found.rank_stabilised is stabilised
    deltas = [
        models.adapted(model, config, tree) for config, tree in ((lora, adapters), (found, read))
    ]
    merged, expected = (models.merged(m).params for m in deltas)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)


def drawn(model, lora):
    config = dataclasses.replace(model.config, lora=lora)
    like = jax.eval_shape(lambda key: models.init_adapters(config, key), jax.random.key(0))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), like)


REFUSED = {
    "kind": (dict(peft_type="IA3"), "peft_type is 'IA3': expected 'LORA'"),
    "dora": (dict(use_dora=True), "use_dora is True"),
    "bias": (dict(bias="all"), "bias is 'all': expected 'none'"),
    "lora bias": (dict(lora_bias=True), "lora_bias is True"),
    "modules": (dict(modules_to_save=["lm_head"]), r"modules_to_save is \['lm_head'\]"),
    "layers": (dict(layers_to_transform=[0]), r"has base_model\.model\.model\.layers\.1\."),
    "no layer": (dict(layers_to_transform=[7]), "takes none of the model's linear modules"),
    "layer": (dict(layers_to_transform=[0.5]), r"layers_to_transform is \[0.5\]: expected a num"),
    "layer pattern": (
        dict(layers_to_transform=[0, 1], layers_pattern="h"),
        "takes none of the model's linear modules",
    ),
    "replication": (dict(layer_replication=[[0, 2]]), "layer_replication is"),
    "tokens": (dict(trainable_token_indices=[1]), "trainable_token_indices is"),
    "pissa": (dict(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "unknown": (dict(new_trick=False), "does not know: new_trick"),
    "scales": (dict(alpha_pattern={"v_proj": 7}), "rank_pattern and alpha_pattern give"),
    "pattern": (dict(rank_pattern={"v_proj": 0}), "rank_pattern is"),
    "expression": (dict(target_modules="(q_proj"), "target_modules is '\\(q_proj'"),
    "targets": (dict(target_modules=None), "target_modules is None"),
    "rank": (dict(r=4), r"shapes \(3, 16\) and \(16, 3\): expected \(4, 16\) and \(16, 4\)"),
    "ranks": (
        dict(rank_pattern={"q_proj": 5}, alpha_pattern={"q_proj": 10}),
        r"expected \(5, 16\)",
    ),
    "dropout": (dict(lora_dropout=1.0), "lora_dropout is 1.0"),
    "alpha": (dict(lora_alpha=REMOVED), "lacks lora_alpha"),
    "other targets": (dict(target_modules=["q_proj"]), "has base_model.model.model.layers.0.mlp"),
    "more targets": (
        dict(target_modules="all-linear"),
        "lacks base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight",
    ),
    "no targets": (
        dict(target_modules=["c_attn"], base_model_name_or_path="org/other"),
        r"target_modules \('c_attn',\) takes none of .*: expected some of self_attn.q_proj, .*; "
        "the adapter was made for 'org/other', the model is 'llama'",
    ),
    "excluded": (dict(exclude_modules=["v_proj"]), "has base_model.*v_proj.lora_A.weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case, base, tmp_path):
    change, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message) as raised:
        models.load_adapter(write_adapter(tmp_path / "a", "llama", **change), base("llama"))
    assert str(tmp_path / "a") in str(raised.value)


def test_damaged_adapters_are_refused(base, tmp_path):
    model, directory = base("llama"), write_adapter(tmp_path / "a", "llama")
    tensors = load_file(directory / "adapter_model.safetensors")
    name = min(tensors)
    write_adapter(directory, "llama", tensors | {name: np.full_like(tensors[name], np.nan)})
    with pytest.raises(CheckpointError, match="are NaN or infinite"):
        models.load_adapter(directory, model)
    write_adapter(directory, "llama", tensors | {"lm_head.weight": tensors[name]})
    with pytest.raises(CheckpointError, match=r"has lm_head\.weight: expected A and B"):
        models.load_adapter(directory, model)
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="are never read; convert them to safetensors"):
        models.load_adapter(directory, model)
    (directory / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        models.load_adapter(directory, model)


def test_names_without_the_prefix_of_the_head(base, tmp_path):
    """As adapters of `AutoModel` have them."""
    model, directory = base("llama"), write_adapter(tmp_path / "a", "llama")
    lora, adapters = models.load_adapter(directory, model)
    tensors = load_file(directory / "adapter_model.safetensors")
    shorter = {
        n.replace("base_model.model.model.", "base_model.model."): t for n, t in tensors.items()
    }
    again = models.load_adapter(write_adapter(tmp_path / "b", "llama", shorter), model)
    assert again[0] == lora
    jax.tree.map(np.testing.assert_array_equal, again[1], adapters)


@pytest.mark.parametrize(
    "changes",
    [
        dict(layers_to_transform=[1]),
        dict(layers_to_transform=1, layers_pattern=["blocks", "layers"]),
        dict(exclude_modules=r".*layers\.0\..*"),
        dict(target_modules="expression"),
    ],
)
def test_layers_without_an_adapter_are_zeros(changes, base, tmp_path):
    model, directory = base("llama"), write_adapter(tmp_path / "a", "llama")
    targets = fixture("llama")["adapter_config"]["target_modules"]
    if "target_modules" in changes:
        changes = changes | dict(target_modules=rf"model\.layers\.1\..*({'|'.join(targets)})")
    lora, whole = models.load_adapter(directory, model)
    tensors = load_file(directory / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".layers.1." in name}
    assert 0 < len(kept) < len(tensors)
    some = write_adapter(tmp_path / "b", "llama", kept, **changes)
    found, adapters = models.load_adapter(some, model)
    assert found == lora
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1:], y[1:]), adapters, whole)
    assert all(not np.any(leaf[0]) for leaf in jax.tree.leaves(adapters))
    with pytest.raises(CheckpointError, match=r"has base_model\.model\.model\.layers\.0"):
        models.load_adapter(write_adapter(tmp_path / "c", "llama", **changes), model)


def test_other_models_and_adapters_are_refused(base, tmp_path):
    model = base("llama")
    lora, adapters = models.load_adapter(write_adapter(tmp_path / "a", "llama"), model)
    with pytest.raises(ValueError, match="by the config's lora"):
        models.save_adapter(tmp_path / "out", adapters, LoraConfig(2, 4.0), model)
    assert not (tmp_path / "out").exists()
    nameless = dataclasses.replace(model, source=None)
    with pytest.raises(CheckpointError, match="PEFT has no names"):
        models.save_adapter(tmp_path / "out", adapters, lora, nameless)
    with pytest.raises(CheckpointError, match="PEFT has no names"):
        models.load_adapter(tmp_path / "a", nameless)
