"""Canonical JSON and the float32 text form."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishjax import io


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_survives_its_text(value):
    text = io.dumps(io.float32_number(np.float32(value)))
    assert np.float32(json.loads(text)) == np.float32(value)


def test_float32_uses_its_shortest_digits():
    assert io.dumps(io.float32_number(np.float32(0.1))) == "0.1"
    assert io.dumps(io.float32_number(np.float32(-1 / 3))) == "-0.33333334"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_what_is_not_a_finite_float32_is_null(value):
    with np.errstate(over="ignore"):
        assert io.float32_number(np.float64(value)) is None


def test_dumps_is_canonical_and_refuses_nan():
    assert io.dumps({"b": 1, "a": ["é", None, True]}) == '{"a":["\\u00e9",null,true],"b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        io.dumps([math.nan])


@pytest.mark.parametrize(
    ("log_value", "written"),
    [
        (-1.0, {"log_s": -1.0, "s": io.float32_number(math.exp(-1.0))}),
        (-1600.0, {"log_s": -1600.0, "s": None}),
        (100.0, {"log_s": 100.0, "s": None}),
        (-math.inf, {"log_s": None, "s": 0.0}),
        (math.nan, {"log_s": None, "s": None}),
    ],
)
def test_logarithmic_scores_are_written_and_read_back(log_value, written):
    assert io.written_score("s", log_value, True) == written
    read = io.score_value(written, "s", True)
    assert read == log_value or (math.isnan(read) and math.isnan(log_value))


def test_plain_scores_are_written_and_read_back():
    assert io.written_score("s", 0.5, False) == {"s": 0.5}
    assert io.score_value({"s": 0.5}, "s", False) == 0.5
    assert math.isnan(io.score_value(io.written_score("s", math.nan, False), "s", False))
    with pytest.raises(KeyError):
        io.score_value({}, "s", False)
    for bad in ("1", True, [1.0]):
        with pytest.raises(TypeError, match="expected a number"):
            io.score_value({"s": bad}, "s", False)
