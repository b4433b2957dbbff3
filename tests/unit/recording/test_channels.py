from __future__ import annotations

import json
from typing import Any

import numpy
import pytest

from taskengine.client.samples import Sample
from taskengine.protocol.layouts import COMMANDS_TOPIC
from taskengine.recording.channels import (
    COMMAND,
    EVENT,
    IMAGE,
    NS,
    PUBLICATION,
    SCHEMAS,
    entries,
    schema_data,
    value_of,
)

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"x": 1.5, "y": [None, True]}, PUBLICATION),
        ("text", PUBLICATION),
        (b"\0\xff", PUBLICATION),
        (JPEG, IMAGE),
        (PNG, IMAGE),
        (numpy.array([[1, 2], [3, 4]], dtype=">i2"), PUBLICATION),
        (numpy.array([0.5, numpy.nan]), PUBLICATION),
    ],
)
def test_a_value_is_recorded_and_comes_back(value: Any, schema: str) -> None:
    sample = Sample("x", value, 1.25, number=7, publisher="source", dropped=3, clock=11)
    [entry] = entries(sample)
    assert (entry.topic, entry.schema, entry.published, entry.number) == ("x", schema, 5 * NS // 4, 7)
    told = json.loads(entry.data)
    assert (told["publisher"], told["dropped"], told["clock"]) == ("source", 3, 11)
    assert set(told) <= set(SCHEMAS[schema]["properties"])
    back = value_of(schema, entry.data)
    if isinstance(value, numpy.ndarray):
        assert back.dtype == value.dtype
        assert numpy.array_equal(back, value, equal_nan=value.dtype.kind == "f")
    else:
        assert back == value


def test_commands_are_recorded_one_by_one_when_they_ended() -> None:
    command = {"task": "steer", "ended": 90 * NS, "began": 80 * NS}
    value = {"commands": [command, command | {"ended": None}], "missed": 2}
    missed, *found = entries(Sample(COMMANDS_TOPIC, value, 1000.0, 1, clock=100 * NS))
    assert (missed.schema, json.loads(missed.data)["details"]) == (EVENT, {"missed": 2})
    assert [(each.schema, each.published) for each in found] == [(COMMAND, 990 * NS), (COMMAND, 1000 * NS)]
    assert json.loads(found[0].data) == command


def test_schemas_are_json() -> None:
    for name in SCHEMAS:
        assert json.loads(schema_data(name))["title"] == name
