"""Rotary positions from `config.json`, in the hub's old and new spelling."""

from typing import Any

from .config_keys import ConfigKeys
from .rotary import Rotary

__all__ = ["read_rotary"]


def read_rotary(
    keys: ConfigKeys,
    context_length: int,
    *,
    layers: str | None = None,
    theta_key: str = "rope_theta",
    default_theta: float = 10000.0,
    fraction: float | None = None,
    scaled: bool = True,
) -> Rotary:
    """`rope_theta` and `rope_scaling`, or `rope_parameters`.

    Args:
      keys: of the file.
      context_length: `max_position_embeddings`.
      layers: the kind of layer ("full_attention", ...) whose entry of `rope_parameters` is meant,
        of a family that has one for each kind.
      theta_key: where the old spelling has the base.
      default_theta: where the file has none.
      fraction: of the features that turn, in the old spelling; None for a family that turns whole
        heads whatever a file says.
      scaled: whether the old spelling's `rope_scaling` is about these layers.

    Raises:
      CheckpointError: a key is unknown, missing or cannot be used.
    """
    new = keys.get("rope_parameters")
    theta = keys.number(theta_key, default_theta)
    if fraction is None:
        keys.same("partial_rotary_factor", 1.0, "as this family always turns whole heads")
    whole = 1.0 if fraction is None else fraction
    if new is None:
        scaling = keys.get("rope_scaling") if scaled else None
        return _scaled(scaling, "rope_scaling", context_length, theta, whole, keys)
    if not isinstance(new, dict):
        raise keys.unusable("rope_parameters", "an object")
    new = dict(new) if layers is None else _entry(keys, new, layers)
    part = ConfigKeys(new, "rope_parameters")
    keys.fixed("rope_scaling", None)  # told twice is told once too often
    inner = part.number("rope_theta", theta)
    keys.same(theta_key, inner, "as in rope_parameters")
    if fraction is None:
        part.same("partial_rotary_factor", 1.0, "as this family always turns whole heads")
    else:
        whole = part.number("partial_rotary_factor", fraction)
    rest = {key: value for key, value in new.items() if key not in part.used}
    if "type" not in rest:
        rest.setdefault("rope_type", "default")
    return _scaled(rest, "rope_parameters", context_length, inner, whole, keys)


def _entry(keys: ConfigKeys, kinds: dict[str, Any], layers: str) -> dict[str, Any]:
    """That of one kind of layer; empty where there is none."""
    known = {"full_attention", "sliding_attention"}
    if unknown := kinds.keys() - known:
        raise keys.unusable(
            "rope_parameters", f"an object for {' and '.join(sorted(known))}, not {min(unknown)!r}"
        )
    found = kinds.get(layers)
    if not isinstance(found, dict | None):
        raise keys.unusable("rope_parameters", "an object for each kind of layer")
    return dict(found or {})


def _scaled(
    scaling: Any, name: str, context_length: int, theta: float, fraction: float, whole: ConfigKeys
) -> Rotary:
    if scaling is None:
        return Rotary(theta, fraction=fraction, interleaved=False)
    if not isinstance(scaling, dict):
        raise whole.unusable(name, "an object")
    keys = ConfigKeys(scaling, name)
    kind = _kind(keys)
    found: dict[str, Any] = dict(theta=theta, fraction=fraction, interleaved=False, kind=kind)
    if kind != "default":
        found["factor"] = keys.number("factor")
    if kind == "llama3":
        found["original_length"] = keys.integer("original_max_position_embeddings")
        found["low"] = keys.number("low_freq_factor")
        found["high"] = keys.number("high_freq_factor")
    if kind == "yarn":
        found["original_length"] = keys.integer("original_max_position_embeddings", context_length)
        found["low"] = keys.number("beta_slow", 1.0)
        found["high"] = keys.number("beta_fast", 32.0)
        found["scale"] = keys.optional("attention_factor")
        found["truncate"] = keys.flag("truncate", True)
    keys.refuse_others(frozenset())
    return Rotary(**found)


def _kind(keys: ConfigKeys) -> str:
    """Which scaling; "type" is the oldest spelling."""
    key = "type" if keys.has("type") else "rope_type"
    kind = keys.get(key)
    if kind in ("dynamic", "longrope"):
        raise keys.unusable(
            key,
            "one of default, linear, llama3, yarn: this one depends on the length of a batch, so "
            "padding would change logits",
        )
    kind = keys.choice(key, {kind: kind for kind in ("default", "linear", "llama3", "yarn")})
    if key == "type":
        keys.fixed("rope_type", kind)
    return kind
