"""Per-example gradient geometry: squared norms, inner products, Grams."""

from fishjax.gradients.reference import dense_grouped_gram as grouped_gram
from fishjax.gradients.reference import dense_squared_norms as squared_norms
from fishjax.gradients.results import Gram, SquaredNorms

__all__ = ["Gram", "SquaredNorms", "grouped_gram", "squared_norms"]
