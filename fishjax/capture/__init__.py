"""Where each parameter enters a computation, and any statistic of its gradients there."""

from fishjax.capture.coverage import Coverage, ParameterCoverage, uses
from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer, Sum
from fishjax.capture.sitewise import Statistic, sitewise
from fishjax.capture.verify import MixedExamplesError, verify

__all__ = [
    "Coverage",
    "Embedding",
    "Gradient",
    "Materialised",
    "MixedExamplesError",
    "Outer",
    "ParameterCoverage",
    "Statistic",
    "Sum",
    "sitewise",
    "uses",
    "verify",
]
