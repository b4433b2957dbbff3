from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest

from taskengine import TaskModuleError, source, task
from taskengine.registry.registry import Registry, Task


def loaded(folder: Path, text: str, name: str = "robot.py") -> Registry:
    (folder / name).write_text(text)
    return Registry.load([str(folder / name)])


def test_functions_are_tasks_by_their_mark_or_by_their_name(tmp_path: Path) -> None:
    registry = loaded(
        tmp_path,
        "from taskengine import source, task\n"
        "@task\ndef marked(): pass\n"
        "@task(name='arm.wave', lane='arm', timeout=2.0, idempotent=True)\ndef wave(times: int = 3): 'Wave.'\n"
        "def task_named(): pass\n"
        "def other(): pass\n"
        "task_value = 5\n"
        "@source('battery', period=0.5)\ndef volts(): return 7.4\n",
    )
    assert registry.failures == []
    assert list(registry.tasks) == ["marked", "arm.wave", "task_named"]
    info = registry.tasks["arm.wave"].info()
    assert (info.lane, info.timeout, info.idempotent) == ("arm", 2.0, True)
    assert (info.signature, info.doc) == ("(times: int = 3)", "Wave.")
    assert registry.sources["battery"].period == 0.5
    assert registry.sources["battery"].function() == 7.4
    assert {"cpu.temperature", "cpu.load"} < registry.sources.keys()


def test_a_folder_is_all_its_files_and_a_bad_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def task_a(): pass\n")
    (tmp_path / "b.py").write_text("import no_such_module\n")
    (tmp_path / "c.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "_hidden.py").write_text("def task_hidden(): pass\n")
    registry = Registry.load([str(tmp_path)])
    assert list(registry.tasks) == ["a"] or list(registry.tasks) == ["task_a"]
    assert [failure.module for failure in registry.failures] == [str(tmp_path / "b.py"), str(tmp_path / "c.py")]
    assert "no_such_module" in str(registry.failures[0])


@pytest.mark.parametrize("entry", ["no_such_module_at_all", "missing.py", "empty_folder"])
def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty_folder").mkdir()
    (failure,) = Registry.load([entry]).failures
    assert entry in str(failure)


def test_two_tasks_of_one_name_are_refused_and_the_first_stays(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(f"def task_same(): pass\ndef task_{name[:3]}(): pass\n")
    registry = Registry.load([str(tmp_path / "one.py"), str(tmp_path / "two.py")])
    assert "task_same" in str(registry.failures[0])
    assert f"by {tmp_path / 'one.py'} and by {tmp_path / 'two.py'}" in str(registry.failures[0])
    assert "task_two" not in registry.tasks


def test_the_nearest_names() -> None:
    registry = Registry.load(["taskengine.tasks"])
    assert registry.nearest("task_cont")[0] == "task_count"
    assert registry.nearest("TASK_COUNT")[0] == "task_count"
    assert registry.nearest("zzz") == []


ARM = """
from functools import partial
from taskengine import task
class Arm:
    def __init__(self, name): self.name = name
    def wave(self, times: int = 3): "Wave."; return self.name, times
    async def nap(self): ...
    @classmethod
    def count(cls): return 2
    def __call__(self, times): return self.name, times
def register(arm):
    task(arm.wave, name=f"{arm.name}.wave", lane=arm.name, timeout=2.0)
register(Arm("left"))
register(Arm("right"))
task(Arm("left").nap)
count = task(Arm.count)
task_both = Arm("both").wave
task(partial(Arm("left").wave, 5), name="five")
task(Arm("right"), name="called")
task(lambda: 7, name="seven")
"""


def test_methods_are_tasks_with_their_objects(tmp_path: Path) -> None:
    registry = loaded(tmp_path, ARM)
    assert registry.failures == []
    functions = {name: task.function for name, task in registry.tasks.items()}
    called = {name: function(*[1][: name == "called"]) for name, function in functions.items() if name != "nap"}
    assert called == {
        "left.wave": ("left", 3),
        "right.wave": ("right", 3),
        "task_both": ("both", 3),
        "count": 2,
        "five": ("left", 5),
        "called": ("right", 1),
        "seven": 7,
    }
    wave = registry.tasks["left.wave"]
    assert (wave.lane, wave.timeout, registry.tasks["nap"].is_async) == ("left", 2.0, True)
    info = wave.info()
    assert (info.signature, info.doc) == ("(times: int = 3)", "Wave.")
    assert wave.origin == f"{tmp_path / 'robot.py'}:6"


def test_a_module_that_another_has_imported_keeps_its_methods(tmp_path: Path) -> None:
    (tmp_path / "limb.py").write_text("from taskengine import task\ntask(int.from_bytes, name='mro')\n")
    (tmp_path / "body.py").write_text("import limb\nraise ValueError('broken')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        registry = Registry.load([str(tmp_path / "body.py"), "limb"])
    finally:
        sys.path.remove(str(tmp_path))
    assert list(registry.tasks) == ["mro"]
    assert len(registry.failures) == 1


async def _coroutine() -> None: ...


async def _generator() -> Any:
    yield 1


def _plain_generator() -> Any:
    yield 1


class _Callable:
    async def __call__(self) -> None: ...


@functools.wraps(_coroutine)
def _wrapper() -> Any:
    return _coroutine()


@pytest.mark.parametrize("wrong", [5, _generator, _plain_generator])
def test_what_cannot_be_a_task_or_a_source_is_refused(wrong: Any) -> None:
    if wrong == 5:
        with pytest.raises(TaskModuleError):
            task(wrong)
    with pytest.raises(TaskModuleError):
        source("topic")(wrong)


@pytest.mark.parametrize("function", [_coroutine, functools.partial(_coroutine), _Callable(), _wrapper])
def test_what_gives_a_coroutine_is_a_task_and_no_source(function: Any) -> None:
    assert Task("name", task(function), "", None, idempotent=False).is_async
    with pytest.raises(TaskModuleError, match="each source has a thread"):
        source("topic")(function)


def test_a_plain_function_is_no_coroutine() -> None:
    assert not Task("name", functools.partial(print), "", None, idempotent=False).is_async


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1.0}, {"timeout": "1"}, {"lane": "data:0"}, {"lane": 3}, {"name": ""}]
)
def test_wrong_options_of_a_task_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TaskModuleError):
        task(**options)


@pytest.mark.parametrize(("topic", "period"), [("", 1.0), (5, 1.0), ("x", 0), ("x", -1), ("x", "1")])
def test_wrong_options_of_a_source_are_refused(topic: Any, period: Any) -> None:
    with pytest.raises(TaskModuleError):
        source(topic, period)
