"""What can go wrong between a run and its directory."""

__all__ = ["OutputError", "RowsError", "RunDirectoryError"]


class OutputError(Exception):
    """Writing failed (full, read-only or vanished disk); rows written before are intact."""


class RunDirectoryError(ValueError):
    """The directory cannot take this run: it holds another run, other files, or is in use."""


class RowsError(ValueError):
    """A row, manifest or metrics file that cannot be read; names the file and the line."""
