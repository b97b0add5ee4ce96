"""Symmetric linear operators on parameter pytrees, and open generic functions on them."""

from fishjax.operators.base import Operator
from fishjax.operators.diagonal import Diagonal
from fishjax.operators.eigen_kronecker import EigenKronecker, EigenKroneckerFactors
from fishjax.operators.generic import (
    apply,
    leaf_metrics,
    move_batch_first,
    multiply,
    quadratic,
    to_dense,
)
from fishjax.operators.isotropic import Isotropic
from fishjax.operators.kronecker import Kronecker, KroneckerFactors
from fishjax.operators.low_rank import LowRankPlusDiagonal

__all__ = [
    "Diagonal",
    "EigenKronecker",
    "EigenKroneckerFactors",
    "Isotropic",
    "Kronecker",
    "KroneckerFactors",
    "LowRankPlusDiagonal",
    "Operator",
    "apply",
    "leaf_metrics",
    "move_batch_first",
    "multiply",
    "quadratic",
    "to_dense",
]
