"""The options of tasks that run again, or by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskengine import task
from taskengine.config.machine import Machine
from taskengine.errors import TaskModuleError
from taskengine.protocol.messages import RetryPolicy, ScheduleState
from taskengine.registry.modules import places_of
from taskengine.registry.registry import Registry
from taskengine.registry.survey import Module, check_pins, read_by_import, survey

ROBOT = """
import socket
from taskengine import task

PERIOD = 5.0

@task(retries=3, backoff=0.2, retry_on=(OSError, socket.timeout))
def fetch(name): ...

@task(every=PERIOD)
def tick(times=1): ...

@task(name="wake", at="07:30", lane="night")
def wake_up(): ...

@task(cron="*/15 8-17 * * MON-FRI", retries=1)
def report(): ...
"""
MACHINE: dict[str, Any] = {"devices": {"led": {"type": "LED", "pin": 17}}}


def write(folder: Path, text: str) -> Path:
    file = folder / "robot.py"
    file.write_text(text, "utf-8")
    return file


def surveyed(file: Path, machine: Machine | None = None) -> Module:
    code = survey([str(file)], machine)
    module = code.modules[-1]
    check_pins(module, machine)
    return module


def test_reading_a_module_finds_what_its_import_registers(tmp_path: Path) -> None:
    file = write(tmp_path, ROBOT)
    module = surveyed(file)
    assert (module.doubt, module.failure) == ("", "")
    code = survey([str(file)])
    assert module.tasks == read_by_import(code.modules[-1], code).tasks
    found = {info.name: (info.retry, info.schedule) for info in module.tasks}
    assert found == {
        "fetch": (RetryPolicy(3, 0.2), None),
        "tick": (None, ScheduleState("tick", every=5.0)),
        "wake": (None, ScheduleState("wake", at="07:30")),
        "report": (RetryPolicy(1), ScheduleState("report", cron="*/15 8-17 * * MON-FRI")),
    }


def test_the_worker_knows_after_which_errors_a_task_runs_again(tmp_path: Path) -> None:
    registry = Registry.load([str(write(tmp_path, ROBOT))])
    assert registry.tasks["fetch"].retry_on == (OSError, TimeoutError)
    assert registry.tasks["report"].retry_on == (Exception,)


@pytest.mark.parametrize("errors", ["make()", "[OSError]", "(OSError, make())", "()"])
def test_what_reading_does_not_tell_of_errors_an_import_does(errors: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"from taskengine import task\n@task(retries=1, retry_on={errors})\ndef fetch(): ...\n")
    assert surveyed(file).doubt or surveyed(file).failure or errors == "()"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("retries=-1", "retries is a whole number"),
        ("retries=2.5", "retries is a whole number"),
        ("retries=True", "retries is a whole number"),
        ("retries=1, backoff=-0.1", "backoff is a number of seconds"),
        ("retries=1, backoff='1'", "backoff is a number of seconds"),
        ("retries=1, retry_on='OSError'", "retry_on is exceptions"),
        ("every=0", "every is a number of seconds"),
        ("at='half past seven'", "at is a time of day"),
        ("cron='* * *'", "Wrong number of fields"),
        ("every=1, cron='* * * * *'", "one of every, at and cron"),
    ],
)
def test_wrong_options_are_found_without_an_import_and_by_one(options: str, said: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"from taskengine import task\n@task({options})\ndef fetch(): ...\n")
    assert said in surveyed(file).failure
    registry = Registry()
    [place] = places_of(str(file))
    assert said in registry.add(place)


@pytest.mark.parametrize("value", [KeyboardInterrupt, (SystemExit,), BaseException, 5, (OSError(),)])
def test_only_exceptions_make_a_task_run_again(value: Any) -> None:
    with pytest.raises(TaskModuleError, match="retry_on is exceptions"):
        task(retries=1, retry_on=value)


def test_one_exception_need_not_be_a_tuple() -> None:
    @task(retries=1, retry_on=OSError)
    def fetch() -> None: ...

    assert fetch.__taskengine__.retry_on == (OSError,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", ["name", "*, name", "a, b=1"])
def test_a_periodic_task_takes_no_arguments_that_nobody_gives(arguments: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"from taskengine import task\n@task(every=1)\ndef tick({arguments}): ...\n")
    said = "tick runs by itself, and takes arguments that nobody gives"
    assert said in surveyed(file).failure
    [place] = places_of(str(file))
    assert said in Registry().add(place)


def test_a_periodic_task_may_have_defaults_and_take_any_number(tmp_path: Path) -> None:
    text = "from taskengine import task\n@task(every=1)\ndef tick(a=1, *rest, b=2, **more): ...\n"
    assert [info.name for info in surveyed(write(tmp_path, text)).tasks] == ["tick"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("retries=2", "fetch has retries, and lane 'hardware' has pins: no task there runs again by itself"),
        ("every=2", "fetch runs every 2 s, and lane 'hardware' has pins: nothing there runs by itself"),
        ("at='07:30'", "fetch runs at 07:30, and lane 'hardware' has pins"),
        ("cron='0 7 * * *'", "fetch runs cron 0 7 * * *, and lane 'hardware' has pins"),
    ],
)
def test_a_lane_with_pins_takes_no_task_that_runs_again_or_by_itself(options: str, said: str, tmp_path: Path) -> None:
    text = f"from taskengine import task\n@task(lane='hardware', {options})\ndef fetch(): ...\n"
    file, machine = write(tmp_path, text), Machine(MACHINE, "mock")
    module = surveyed(file, machine)
    assert said in module.failure
    assert module.tasks == []
    assert surveyed(file).failure == ""
    registry = Registry()
    registry.add_machine(machine)
    [place] = places_of(str(file))
    assert said in registry.add(place)
    assert "fetch" not in registry.tasks
