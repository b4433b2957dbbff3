from __future__ import annotations

import functools
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


async def _coroutine() -> None: ...


async def _generator() -> Any:
    yield 1


class _Callable:
    async def __call__(self) -> None: ...


@functools.wraps(_coroutine)
def _wrapper() -> Any:
    return _coroutine()


@pytest.mark.parametrize("wrong", [5, _generator])
def test_what_cannot_be_a_task_is_refused(wrong: Any) -> None:
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
