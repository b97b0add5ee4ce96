"""Per-example gradient geometry: squared norms, inner products, Grams."""

from fishjax.gradients.grams import grouped_gram, jacobian_gram, output_gram
from fishjax.gradients.kernels import inner_products
from fishjax.gradients.norms import output_squared_norms, squared_norms
from fishjax.gradients.pairwise import pairwise
from fishjax.gradients.results import Gram, SquaredNorms
from fishjax.gradients.sums import ClippedGradients, clipped_gradients, gradient_blocks

__all__ = [
    "ClippedGradients",
    "Gram",
    "SquaredNorms",
    "clipped_gradients",
    "gradient_blocks",
    "grouped_gram",
    "inner_products",
    "jacobian_gram",
    "output_gram",
    "output_squared_norms",
    "pairwise",
    "squared_norms",
]
