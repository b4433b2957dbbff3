"""Reads the registrations of a task module without running it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from taskengine.registry.discovery import MODULE, NAME, NOTHING, Found, discover
from taskengine.registry.registry import Registry
from taskengine.registry.survey import survey


def offers(module: str, level: int, name: str) -> str:
    """A module `neighbour`, which has a task `wave`, and others."""
    if module != "neighbour":
        return NOTHING
    return NAME if name in ("wave", "*") else NOTHING if name else MODULE


def read(text: str) -> Found:
    return discover(ast.parse(text), offers)


CERTAIN = """
import os, sys
from functools import lru_cache
import taskengine as te
from taskengine import source, task as job
from neighbour import calm

LANE = "arm"
task_value = 5

@job
def plain(angle: float, /, speed: float = 1.0, *rest: int, hard=True, **more: "str") -> float:
    '''Turn.

    More.
    '''

@te.task(name="arm.wave", lane=LANE, timeout=2.5, idempotent=True, urgent=True)
def wave(times: int = 3): ...

@job
@lru_cache
def cached(): ...

@lru_cache
def task_cached(n=-1): ...

def task_plain(a, *, b): ...

@source("battery", period=0.5)
def volts(): ...

def helper(): return os.getpid()

class Arm:
    def task_of_no_module(self): ...

try:
    import numpy
except ImportError:
    numpy = None

if __name__ == "__main__":
    job(helper)
"""


def test_what_is_literal_is_read_as_its_import_registers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "neighbour.py").write_text("def calm(): ...\n")
    file = tmp_path / "robot.py"
    file.write_text(CERTAIN)
    (module,) = (module for module in survey([str(file)]).modules if module.path)
    assert (module.doubt, module.failure, module.complaints) == ("", "", [])
    registry = Registry.load([str(file)])
    assert registry.failures == []
    assert module.tasks == [known.info() for known in registry.tasks.values()]
    assert {*module.topics} == registry.sources.keys() - {"cpu.load", "cpu.temperature"}
    assert module.origins == {
        **{name: known.origin for name, known in registry.tasks.items()},
        "source battery": registry.sources["battery"].origin,
    }
    sys.modules.pop("neighbour")


@pytest.mark.parametrize(
    "text",
    [
        "from taskengine import task\nfor n in range(3): globals()[f'task_{n}'] = lambda: n",
        "from taskengine import task\ntask(name='x')(print)",
        "from taskengine import task\n@task(**options)\ndef f(): ...",
        "from taskengine import task\n@task(name=name())\ndef f(): ...",
        "from taskengine import task\nLANE = 'a'\nLANE = 'b'\n@task(lane=LANE)\ndef f(): ...",
        "from taskengine import task\nif True:\n  @task\n  def f(): ...",
        "from taskengine import task\ndef arm(f): return task(f, lane='arm')\n@arm\ndef f(): ...",
        "from taskengine import task\nfrom functools import partial\narm = partial(task, lane='arm')",
        "try:\n  import x\nexcept ImportError:\n  def task_f(): ...",
        "task_f = make()",
        "task_f = lambda: 5",
        "from neighbour import wave",
        "from neighbour import *",
        "from elsewhere import task_f",
        "import neighbour\n@neighbour.arm\ndef f(): ...",
        "exec('def task_f(): ...')",
        "def task_f(): ...\ndel task_f",
    ],
)
def test_what_is_not_literal_is_left_to_the_import(text: str) -> None:
    assert read(text).doubt


@pytest.mark.parametrize(
    "text",
    [
        "import neighbour\ndef f(): return neighbour.wave()",
        "from neighbour import calm\n@calm\ndef f(): ...",
        "from taskengine import task\ndef f(): return task",
        "import serial\nport = serial.Serial('/dev/ttyUSB0')",
        "import signal\nwith open('x') as file: text = file.read()",
    ],
)
def test_what_cannot_register_anything_is_no_doubt(text: str) -> None:
    found = read(text)
    assert (found.doubt, found.declared) == ("", [])


def test_a_method_registers_nothing_and_is_told() -> None:
    found = read("from taskengine import task\nclass Arm:\n  @task\n  def wave(self): ...")
    assert (found.declared, found.doubt) == ([], "")
    assert found.complaints == [
        "line 4: @task on the method Arm.wave registers nothing: write `task(arm.wave)` in the module, with an object "
        "in place of its class"
    ]


def test_a_task_that_is_defined_again_is_told() -> None:
    found = read("def task_f(): ...\n\ndef task_f(a): ...\ndef g(): ...\ndef g(): ...")
    assert [(task.function, task.signature) for task in found.declared] == [("task_f", "(a)")]
    assert found.complaints == [
        "line 3: task_f is defined again, so that the one in line 1 is lost: give one of them another name"
    ]
    assert not read("import typing\n@typing.overload\ndef task_f(): ...\ndef task_f(a=1): ...").complaints
