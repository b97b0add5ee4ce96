"""Where each parameter enters a computation, and any statistic of its gradients there."""

from fishjax.capture.factored import Embedding, Gradient, Materialised, Outer, Sum
from fishjax.capture.sitewise import Statistic, sitewise

__all__ = [
    "Embedding",
    "Gradient",
    "Materialised",
    "Outer",
    "Statistic",
    "Sum",
    "sitewise",
]
