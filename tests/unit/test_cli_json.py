"""Values as JSON: none becomes another value, and none is a traceback."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import numpy as np
import pytest

from taskengine.cli_json import json_text
from taskengine.errors import BadArguments


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"angle": 2.5, "é": [1, None, True]}, '{"angle":2.5,"é":[1,null,true]}'),
        (np.array([[1, 2], [3, 4]], dtype=np.int16), "[[1,2],[3,4]]"),
        ({"scan": np.array([0.5, math.nan])}, '{"scan":[0.5,NaN]}'),
        (np.float64(0.5), "0.5"),
        (np.int32(7), "7"),
        (np.array([1 + 2j]), '["(1+2j)"]'),
        ({(1, 2): "x", None: {("a", 1.5): b"b"}}, '{"[1,2]":"x","null":{"[\\"a\\",1.5]":"Yg=="}}'),
        ({True: 1, 1.5: 2}, '{"true":1,"1.5":2}'),
        ({1: "x"}, '{"1":"x"}'),
        ({b"k": 1}, '{"aw==":1}'),
        (math.nan, "NaN"),
        ([math.inf, -math.inf], "[Infinity,-Infinity]"),
        (b"\0", '"AA=="'),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), '"2026-01-02T00:00:00Z"'),
        (2**70, str(2**70)),
        ({3}, "[3]"),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert json_text(value) == text
    json.loads(text)


def test_keys_that_become_the_same_are_said() -> None:
    for value, text in (({(1,): 1, "[1]": 2}, r"'\[1\]'"), ([{1: 1, "1": 2}], "'1'")):
        with pytest.raises(BadArguments, match=text):
            json_text(value)
