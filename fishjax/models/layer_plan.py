"""What differs from layer to layer: windows and rotations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .attention import Context
from .config import DecoderConfig

__all__ = ["LayerPlan"]


class LayerPlan:
    """Windows and rotations of all layers: constants where layers agree, scanned where not.

    Args:
      config: the architecture.
      length: positions to tabulate.
      places: `[N, T]` positions of the tokens, None for 0 .. T - 1 in every row.
    """

    def __init__(self, config: DecoderConfig, length: int, places: Array | None):
        windows = config.windows
        self._uniform = len(set(windows)) == 1
        self._window = windows[0]
        self._tables: list[tuple[Any, Any]] = [(None, None)]
        self.kinds: dict[str, Any] = {}
        if config.positions == "rotary":
            local = {window is not None for window in windows}
            self._tables = [
                _at(config.rotary_of(local=kind).tables(config.head_width, length), places)
                for kind in sorted(local)
            ]
        if not self._uniform:
            whole = 2 * config.context_length + length  # further than any position looks back
            self.kinds = {
                "window": np.asarray([w or whole for w in windows], np.int32),
                "local": np.asarray([w is not None for w in windows]),
            }

    def context(self, kind: dict[str, Any], common: Context) -> Context:
        """Of one layer: `common` with its window and rotation; `kind` is its row of `kinds`."""
        window = self._window if self._uniform else kind["window"]
        tables = self._tables[0]
        if len(self._tables) == 2:
            pairs = zip(*self._tables, strict=True)
            tables = tuple(jnp.where(kind["local"], near, far) for far, near in pairs)
        cos, sin = tables
        return common._replace(cos=cos, sin=sin, window=window)


def _at(tables: tuple[np.ndarray, np.ndarray], places: Array | None) -> tuple[Any, Any]:
    """Rows of the tables at the tokens' positions."""
    if places is None:
        return tables
    dtype = jnp.promote_types(jnp.float32, jnp.result_type(float))
    return tuple(jnp.asarray(table, dtype)[places] for table in tables)  # type: ignore[return-value]
