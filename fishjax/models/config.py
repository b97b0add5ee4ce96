"""The numbers that fix a decoder's shapes and arithmetic."""

import dataclasses
import math

__all__ = ["DecoderConfig"]

COMPUTE_DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a Llama-family decoder.

    Attributes:
      vocab_size: number of token ids V.
      width: model dimension d.
      hidden_width: inner dimension f of the gated MLP.
      num_layers: number of blocks L.
      num_heads: query heads h; `width` is a multiple of it.
      num_kv_heads: key and value heads g; `num_heads` is a multiple of it.
      context_length: longest sequence the model accepts, in tokens.
      rope_theta: base of the rotary frequencies.
      norm_epsilon: added to the mean square in RMSNorm.
      tied: the head is the transposed embedding; otherwise it has its own weight.
      remat: recompute each block in the backward pass instead of storing its activations.
      dtype: compute dtype, one of float32, bfloat16, float16, float64. Norms, the attention
        softmax and the logits stay in float32 (float64 for float64).

    Raises:
      ValueError: a size is not a positive integer, the heads do not divide, the head size is
        odd (RoPE rotates pairs), or the dtype is unknown.
    """

    vocab_size: int
    width: int
    hidden_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    context_length: int
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    tied: bool = True
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for name in _SIZES:
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} is {size!r}: expected a positive integer")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.head_width % 2:
            raise ValueError(
                f"width / num_heads is {self.head_width}: RoPE rotates pairs, so it must be even"
            )
        for name in ("rope_theta", "norm_epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}: expected a positive finite number")
        if self.dtype not in COMPUTE_DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}: expected one of {list(COMPUTE_DTYPES)}")

    @property
    def head_width(self) -> int:
        """Dimension k of one attention head."""
        return self.width // self.num_heads


_SIZES = (
    "vocab_size",
    "width",
    "hidden_width",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "context_length",
)
