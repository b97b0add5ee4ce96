"""Runs on disk: a manifest, rows that survive `kill -9`, atomic files, one writer at a time."""

from fishjax.io.canonical import dumps, float32_number, linear_number
from fishjax.io.errors import OutputError, RowsError, RunDirectoryError
from fishjax.io.files import append_durably, make_directory, write_atomic
from fishjax.io.frames import open_frame
from fishjax.io.row_file import append_batch, finish_rows, read_rows, recover_rows
from fishjax.io.rows import (
    QuestionFacts,
    QuestionValues,
    build_row,
    score_value,
    written_score,
)
from fishjax.io.run_directory import (
    ADAPTERS_NAME,
    CONFIG_NAME,
    DOCUMENTS_NAME,
    LOSSES_NAME,
    MANIFEST_NAME,
    METRICS_NAME,
    MODEL_NAME,
    OPERATOR_NAME,
    PEFT_NAME,
    PLOTS_NAME,
    ROWS_NAME,
    SCHEMA_VERSION,
    STATES_NAME,
    locked,
    open_run,
    read_manifest,
)
from fishjax.io.step_log import keep_steps

__all__ = [
    "ADAPTERS_NAME",
    "CONFIG_NAME",
    "DOCUMENTS_NAME",
    "LOSSES_NAME",
    "MANIFEST_NAME",
    "METRICS_NAME",
    "MODEL_NAME",
    "OPERATOR_NAME",
    "PEFT_NAME",
    "PLOTS_NAME",
    "ROWS_NAME",
    "SCHEMA_VERSION",
    "STATES_NAME",
    "OutputError",
    "QuestionFacts",
    "QuestionValues",
    "RowsError",
    "RunDirectoryError",
    "append_batch",
    "append_durably",
    "build_row",
    "dumps",
    "finish_rows",
    "float32_number",
    "keep_steps",
    "linear_number",
    "locked",
    "make_directory",
    "open_frame",
    "open_run",
    "read_manifest",
    "read_rows",
    "recover_rows",
    "score_value",
    "write_atomic",
    "written_score",
]
