"""The two ways a command ends badly that are foreseen."""

__all__ = ["InputError", "RunError"]


class InputError(ValueError):
    """What the user gave cannot be used; exit status 2."""


class RunError(Exception):
    """The run failed though its input was sound; exit status 1."""
