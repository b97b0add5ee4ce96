r"""Plain text: windows of documents as questions, and documents put together again.

With $\ell$ the log-likelihood in nats of all T tokens that are scored, perplexity is
$e^{-\ell / T}$ and bits per byte $-\ell / (B \ln 2)$, where B counts the UTF-8 bytes of the text
that is scored (see `fishjax.tasks.encode_documents`: all of it where documents begin with a
begin-of-sequence token, all but the first token's where not). Unlike perplexity, bits per byte
compare models with different tokenizers.
"""

import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fishjax import io
from fishjax.cli.generations import GeneratedAnswers
from fishjax.models import LanguageModel
from fishjax.tasks import Question, encode_documents, read_documents

__all__ = [
    "TEXT_TASK",
    "TextPoints",
    "document_lines",
    "measure_text",
    "text_points",
    "text_summary",
    "text_windows",
]

TEXT_TASK = "text"
_QUARTILES = {"lowest": 0.0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75}
_QUARTILES |= {"highest": 1.0}


class TextPoints(NamedTuple):
    """What plots show of W windows.

    Attributes:
      log_perplexity: `[W]`, NaN where not finite.
      log_norm_per_token: `[W]` log of the squared gradient norm of the log-likelihood a token.
      hottest: id and token values of the window with the highest, if tokens were asked for.
    """

    log_perplexity: np.ndarray
    log_norm_per_token: np.ndarray
    hottest: tuple[str, Mapping[str, Any]] | None


def text_windows(
    data: pathlib.Path,
    model: LanguageModel,
    limit: int | None,
    stride: int | None,
    max_characters: int | None = None,
) -> GeneratedAnswers:
    """Windows in which every token of the first `limit` documents is scored once.

    Args:
      data: file of documents.
      model: that scores.
      limit: of documents.
      stride: as in `encode_documents`.
      max_characters: of each document; the rest of it is as if it were not there.

    Raises:
      TaskError: the file cannot be read, or has nothing to predict.
    """
    documents = [text[:max_characters] for text in read_documents(data)[:limit]]
    found = encode_documents(
        documents, model.tokenizer, model.config.context_length, model.adds_bos, stride
    )
    questions = tuple(Question(w.id, "", ("",), (1,), ("",), {}) for w in found.windows)
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    return GeneratedAnswers(
        TEXT_TASK, questions, found.windows, [], digest, document_bytes=found.num_bytes.tolist()
    )


def document_lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a document.

    A document's log-likelihood is the sum of its windows'; its squared gradient norm is that of
    its windows added up, which leaves out what lies between them.
    """
    documents: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        documents.setdefault(int(row["id"].split(":")[0]), []).append(row)
    return [_document(number, parts) for number, parts in documents.items()]


def measure_text(
    rows: Sequence[Mapping[str, Any]], documents: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Totals over all documents whose numbers are finite, and how their perplexities spread.

    Returns:
      Plain JSON values; `None` where a measure is undefined. `perplexity` is over all tokens
      alike, so long documents count more; `document_perplexity` counts each document once.
    """
    known = [line for line in documents if line["log_likelihood"] is not None]
    tokens = sum(line["num_tokens"] for line in known)
    sizes = [line["num_bytes"] for line in known]
    total = math.fsum(line["log_likelihood"] for line in known)
    bytes_known = bool(known) and None not in sizes and sum(sizes) > 0
    per_document = [-line["log_likelihood"] / line["num_tokens"] for line in known]
    return {
        "num_documents": len(documents),
        "num_windows": len(rows),
        "num_non_finite": len(documents) - len(known),
        "num_tokens": tokens,
        "num_bytes": sum(sizes) if bytes_known else None,
        "log_likelihood": total,
        "mean_log_likelihood": total / tokens if tokens else None,
        "perplexity": _exp(-total / tokens) if tokens else None,
        "bits_per_byte": -total / (math.log(2) * sum(sizes)) if bytes_known else None,
        "document_perplexity": {
            name: _exp(float(np.quantile(per_document, q))) if known else None
            for name, q in _QUARTILES.items()
        },
    }


def text_points(rows: Sequence[Mapping[str, Any]]) -> TextPoints:
    """The coordinates of every window."""
    surprise = np.array([_mean_surprise(row) for row in rows])
    norms = np.array([_log_squared_norm(row) - math.log(_tokens(row)) for row in rows])
    shown = [i for i, row in enumerate(rows) if "tokens" in row and np.isfinite(norms[i])]
    hottest = max(shown, key=lambda i: norms[i], default=None)
    named = None if hottest is None else (rows[hottest]["id"], rows[hottest]["tokens"])
    return TextPoints(surprise, norms, named)


def text_summary(text: Mapping[str, Any]) -> str:
    """Counts and measures in one line."""
    parts = [f"{text['num_documents']} documents", f"{text['num_tokens']} tokens"]
    if text["perplexity"] is None:
        parts.append("perplexity undefined")
    else:
        parts.append(f"log-likelihood {text['mean_log_likelihood']:.4f} nats a token")
        parts.append(f"perplexity {text['perplexity']:.4f}")
        spread = text["document_perplexity"]
        parts[-1] += (
            f" (of a document: median {spread['median']:.4g}, "
            f"{spread['lowest']:.4g} to {spread['highest']:.4g})"
        )
    if text["bits_per_byte"] is not None:
        parts.append(f"{text['bits_per_byte']:.4f} bits per byte of {text['num_bytes']}")
    elif text["perplexity"] is not None:
        parts.append("bits per byte unknown (rows of an earlier fishjax)")
    if text["num_non_finite"]:
        parts.append(f"{text['num_non_finite']} non-finite")
    return ", ".join(parts)


def _document(number: int, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tokens = sum(map(_tokens, parts))
    finite = all(part["status"] == "ok" for part in parts)
    total = math.fsum(p["answers"][0]["log_likelihood"] for p in parts) if finite else None
    size = parts[0].get("document_bytes")  # rows of earlier versions have none
    norm = float(np.logaddexp.reduce([_log_squared_norm(part) for part in parts]))
    measures: dict[str, float | None] = {"log_likelihood": None, "perplexity": None}
    measures |= {"bits_per_byte": None, "log_squared_norm": None}
    if total is not None:
        measures["log_likelihood"] = io.float32_number(total)
        measures["perplexity"] = io.float32_number(_exp(-total / tokens) or math.inf)
        measures["log_squared_norm"] = io.float32_number(norm)
        if size:
            measures["bits_per_byte"] = io.float32_number(-total / (math.log(2) * size))
    return {
        "document": number,
        "num_windows": len(parts),
        "num_tokens": tokens,
        "num_bytes": size,
        **measures,
    }


def _tokens(row: Mapping[str, Any]) -> int:
    return row["answers"][0]["num_tokens"]


def _mean_surprise(row: Mapping[str, Any]) -> float:
    if row["status"] != "ok":
        return math.nan
    return -row["answers"][0]["log_likelihood"] / _tokens(row)


def _log_squared_norm(row: Mapping[str, Any]) -> float:
    r"""Of the gradient of a window's log-likelihood; `-inf` for an exact zero.

    From $\|\nabla e^{\ell/L}\|^2 = e^{2\ell/L} \|\nabla\ell\|^2 / L^2$, whose exponent is small.
    """
    if row["status"] != "ok":
        return math.nan
    name = "normalised_sequence_epistemic"
    written = io.score_value(row["scores"], name, logarithmic=True)
    return written + 2 * (math.log(_tokens(row)) + _mean_surprise(row))


def _exp(value: float) -> float | None:
    """`None` where a float overflows."""
    try:
        return math.exp(value)
    except OverflowError:
        return None
