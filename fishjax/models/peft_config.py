"""`adapter_config.json` of PEFT: what is understood, what does nothing, what is refused."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .config_keys import ConfigKeys

__all__ = ["IGNORABLE", "PeftSettings", "read_settings"]

IGNORABLE = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",
        "inference_mode",
        "loftq_config",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
"""Keys that cannot change what a LoRA adapter computes: names, how it was drawn, how it runs.

`fan_in_fan_out` is among them because A and B have one layout whatever that of the weight.
"""


class PeftSettings(NamedTuple):
    """What an `adapter_config.json` says.

    Attributes:
      rank: of modules without one of their own.
      alpha: likewise.
      dropout: in training.
      rank_stabilised: the scale is alpha / sqrt(rank) instead of alpha / rank.
      targets: names of modules or their ends, or a regular expression.
      excluded: likewise, None for none.
      layers: numbers of the layers that `targets` are about, None for all.
      layer: regular expression that finds the number of a layer in a module's name.
      ranks: by regular expression of a module's name or its end.
      alphas: likewise.
    """

    rank: int
    alpha: float
    dropout: float
    rank_stabilised: bool
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...] | None
    layers: frozenset[int] | None
    layer: str
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def takes(self, module: str) -> bool:
        """Whether the module has an adapter."""
        if self.excluded is not None and _matches(self.excluded, module):
            return False
        if self.layers is not None:
            found = re.search(self.layer, module)
            if found is None or int(found[1]) not in self.layers:
                return False
        return self.targets == "all-linear" or _matches(self.targets, module)

    def rank_of(self, module: str) -> int:
        """Of one module."""
        return _override(self.ranks, module, self.rank)

    def alpha_of(self, module: str) -> float:
        """Of one module."""
        return float(_override(self.alphas, module, self.alpha))

    def scale_of(self, module: str) -> float:
        """What the product of B and A is multiplied by."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_settings(values: Mapping[str, Any], name: str = "adapter_config.json") -> PeftSettings:
    """Reads the parsed file; a key that is null means nothing, as one that is not there.

    Args:
      values: the JSON object.
      name: of the file, for errors.

    Raises:
      CheckpointError: no LoRA, an unknown key, a variant that is not supported (DoRA, biases,
        whole modules beside the adapters, ...), or a value that makes no sense.
    """
    keys = ConfigKeys({key: value for key, value in values.items() if value is not None}, name)
    keys.fixed("peft_type", "LORA")
    keys.fixed("bias", "none")
    for switch in ("use_dora", "use_qalora", "lora_bias", "use_bdlora"):
        keys.fixed(switch, False)
    for variant in _VARIANTS:
        keys.fixed(variant, None, [], {})
    # others (pissa, olora, corda, loftq) changed the weights that the adapter is added to
    keys.fixed("init_lora_weights", True, False, "gaussian", "eva", "orthogonal")
    found = PeftSettings(
        rank=keys.integer("r"),
        alpha=keys.number("lora_alpha"),
        dropout=_dropout(keys),
        rank_stabilised=keys.flag("use_rslora", False),
        targets=_names(keys, "target_modules"),
        excluded=_names(keys, "exclude_modules") if keys.get("exclude_modules") else None,
        layers=_layers(keys),
        layer=_layer(keys),
        ranks=_pattern(keys, "rank_pattern", lambda x: isinstance(x, int)),
        alphas=_pattern(keys, "alpha_pattern", lambda x: isinstance(x, int | float)),
    )
    keys.refuse_others(IGNORABLE)
    return found


_VARIANTS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "velora_config",
)


def _dropout(keys: ConfigKeys) -> float:
    value = keys.get("lora_dropout", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise keys.unusable("lora_dropout", "a number in [0, 1)")
    return float(value)


def _names(keys: ConfigKeys, key: str) -> str | tuple[str, ...]:
    value = keys.get(key)
    if isinstance(value, str):
        _check_expressions(keys, key, [value])
        return value
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise keys.unusable(key, "names of modules, or a regular expression")
    return tuple(value)


def _layers(keys: ConfigKeys) -> frozenset[int] | None:
    value = keys.get("layers_to_transform")
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(index) is int and index >= 0 for index in listed):
        raise keys.unusable("layers_to_transform", "a number of a layer, or a list of them")
    return frozenset(listed) or None


def _layer(keys: ConfigKeys) -> str:
    """By default the first number in a module's name is that of its layer."""
    if not keys.get("layers_pattern"):
        return r"(?:^|\.)(\d+)\."
    names = _names(keys, "layers_pattern")
    names = (names,) if isinstance(names, str) else names
    _check_expressions(keys, "layers_pattern", names)
    return rf"(?:^|\.)(?:{'|'.join(names)})\.(\d+)\."


def _pattern(keys: ConfigKeys, key: str, fits: Any) -> dict[str, Any]:
    value = keys.get(key) or {}
    if not isinstance(value, dict) or not all(
        fits(x) and not isinstance(x, bool) and 0 < x < math.inf for x in value.values()
    ):
        raise keys.unusable(key, "an object of positive numbers by pattern of a module")
    _check_expressions(keys, key, value)
    return value


def _check_expressions(keys: ConfigKeys, key: str, expressions: Iterable[str]) -> None:
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise keys.unusable(key, f"regular expressions ({error})") from None


def _matches(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _override(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the module's name or its end."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise
