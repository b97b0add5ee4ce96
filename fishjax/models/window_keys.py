"""Sliding windows from `config.json`: how long, and in which layers."""

import types
from collections.abc import Mapping
from typing import Any

from .config_keys import ConfigKeys

__all__ = ["read_window", "read_windows"]

_WINDOW = 4096  # default of transformers' classes, which a file that lacks the key means


def read_window(keys: ConfigKeys) -> int | None:
    """None where the key is null; a file without the key means the class's default."""
    window = keys.get("sliding_window", _WINDOW)
    return keys.integer("sliding_window", _WINDOW) if window is not None else None


def read_windows(
    keys: ConfigKeys,
    num_layers: int,
    default: tuple[bool, ...],
    *,
    used: bool = True,
    told: Mapping[str, int] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """`window` and `window_layers` from `layer_types`, or the family's default.

    Args:
      keys: of the file.
      num_layers: of the model.
      default: which layers have a window where `layer_types` is not there.
      used: whether there are windows at all.
      told: keys from which `default` comes, with their own defaults. `save_pretrained` writes
        those beside any `layer_types`, so they contradict nothing.

    Raises:
      CheckpointError: `layer_types` contradicts a key in `told` that says something, or asks for
        windows where there is none.
    """
    window, listing = read_window(keys), keys.get("layer_types")
    window = window if used else None
    chosen = default if window is not None else (False,) * num_layers
    if listing is not None:
        kinds = {"full_attention": False, "sliding_attention": True}
        if not isinstance(listing, list) or not all(kind in (*kinds,) for kind in listing):
            raise keys.unusable("layer_types", f"a list of {', '.join(kinds)}")
        if len(listing) != num_layers:
            raise keys.unusable("layer_types", f"{num_layers} entries, one a layer")
        listed = tuple(kinds[kind] for kind in listing)
        if window is None and any(listed):
            raise keys.unusable("layer_types", "full_attention alone, as no window is used")
        by = [name for name, own in told.items() if keys.get(name) not in (None, own)]
        if by and listed != chosen:
            raise keys.unusable("layer_types", f"the layers that {by[0]} says")
        chosen = listed
    if not any(chosen):
        return dict(window=None)
    return dict(window=window, window_layers=chosen)
