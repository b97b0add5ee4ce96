"""Rows of a run as a pandas data frame (an extra)."""

import importlib
import pathlib
from typing import Any

from fishjax.io.row_file import read_rows
from fishjax.io.run_directory import ROWS_NAME, read_manifest

__all__ = ["open_frame"]


def open_frame(directory: str | pathlib.Path) -> Any:
    """A finished run of `fishjax score` or `generate`, one row a question.

    Nested objects become columns with dotted names (`scores.epistemic`, `metadata.subject`); lists
    stay lists.

    Args:
      directory: of the run.

    Returns:
      A `pandas.DataFrame` in the order of the questions, its index their number.

    Raises:
      ImportError: pandas is not installed.
      RowsError: no run, or an unfinished one.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    rows = read_rows(directory / ROWS_NAME, manifest["num_questions"])
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise ImportError("data frames need pandas: pip install 'fishjax[frames]'") from None
    return pandas.json_normalize(rows).set_index("index")
