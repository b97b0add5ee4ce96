"""What can be wrong with files a user brings."""

__all__ = ["CheckpointError", "TokenizerError"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; says what came, what was expected, what to do."""


class TokenizerError(ValueError):
    """A tokenizer file that cannot be read, or text it cannot encode."""
