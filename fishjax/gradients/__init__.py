"""Per-example gradient geometry: squared norms, inner products, Grams."""

from fishjax.gradients.grams import grouped_gram, inner_products, jacobian_gram
from fishjax.gradients.norms import squared_norms
from fishjax.gradients.results import Gram, SquaredNorms

__all__ = [
    "Gram",
    "SquaredNorms",
    "grouped_gram",
    "inner_products",
    "jacobian_gram",
    "squared_norms",
]
