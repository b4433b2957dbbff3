from __future__ import annotations

import json
from typing import Any

import pytest

from taskengine.datatypes import DataFrame, Frame, MetaFrame, TaskFrame, prepare


def test_the_seeds_formatting_sample() -> None:
    pack = 1483507553.307392
    kwargs: dict[str, Any] = {"id": "CLIENT", "role": "requestor", "version": 0.1, "type": "REQ", "pack": pack}
    meta = json.loads(prepare(MetaFrame(pack), kwargs))
    assert {key: meta[key] for key in kwargs} == kwargs
    assert {"length", "serial", "part", "size"} < meta.keys()
    kwargs = {"task": "task_count", "args": [2, 3], "kwargs": {}, "pack": pack}
    assert json.loads(prepare(TaskFrame(pack), kwargs)) == kwargs
    assert json.loads(prepare(DataFrame(pack), {"data": [1, "x"]})) == {"data": [1, "x"], "pack": pack}


@pytest.mark.parametrize("frame", [MetaFrame(1), TaskFrame("x"), DataFrame(2.5)])
def test_an_unknown_key_is_named(frame: Frame) -> None:
    with pytest.raises(TypeError, match="colour"):
        prepare(frame, {"colour": "red"})
