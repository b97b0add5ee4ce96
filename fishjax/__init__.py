"""Exact per-example gradient geometry and Fisher-information uncertainty for JAX models.

The rooms of the house, in import order: `operators` (covariances), `capture` (where each
parameter enters a computation), `gradients` (per-example gradient geometry), `scores` and
`metrics`, and the leaves `models`, `tasks`, `io`, `plots` and `cli`. Nothing is imported here, so
`import fishjax` is cheap; import the room you need.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
