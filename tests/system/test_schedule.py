"""Periodic tasks of a running engine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, NotAllowed
from taskengine.protocol.messages import ScheduleState
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until
from tests.system.test_docs import blocks

pytestmark = pytest.mark.system

MODULE = """
import os, time
from taskengine import caller, task

@task(every=0.2)
def tick():
    return caller()

@task(every=0.1)
def broken():
    raise OSError("no battery")

@task(every=0.1)
def slow():
    with open("runs", "a") as file:
        file.write(f"begin {time.monotonic()}\\n")
    time.sleep(0.35)
    with open("runs", "a") as file:
        file.write(f"end {time.monotonic()}\\n")

@task(cron="* * * * * *")
def second():
    return [1, 2]

@task(at="07:30")
def wake(): ...
"""
RULED = """
from taskengine import caller, check_device, task

@task(every=0.1)
def rounds():
    check_device("lamp")
    return caller()

@task(every=0.1)
def wider():
    check_device("motor")

@task(every=0.1)
def unnamed(): ...
"""
POLICY = """
[policy.schedule]
tasks = ["rounds", "wider"]
devices = ["lamp"]

[policy.laptop]
tasks = ["rounds"]
calls = ["stats"]
subscribe = ["schedule.rounds*"]
publish = ["*"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("periodic")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    (folder / "robot.py").write_text(MODULE)
    [example] = [block for block in blocks("docs/tasks.md", "python") if "every=10.0" in block]
    (folder / "example.py").write_text(re.sub('cron=".*?"', 'cron="* * * * * *"', example.replace("10.0", "0.3")))
    with Engine(cwd=folder, tasks="robot.py,example.py", trust_clock="true") as running:
        yield running


def states(client: Client) -> dict[str, ScheduleState]:
    return {state.task: state for state in client.stats().schedules}


def test_tasks_run_without_a_client_and_are_told_of_everywhere(engine: Engine, client: Client) -> None:
    wait_until(lambda: min(states(client)[name].runs for name in ("tick", "second")) > 1, 20, "two runs of each")
    found = states(client)
    assert (found["tick"].last, found["tick"].failed, found["tick"].timing) == ("schedule", 0, "every 0.2 s")
    assert found["tick"].due is not None
    assert 0.0 <= found["tick"].due <= 0.2
    assert found["broken"].last == "OSError: no battery"
    assert found["broken"].failed == found["broken"].runs
    assert found["second"].last == "3 bytes"
    assert found["wake"].due is not None
    assert found["wake"].due <= 25 * 3600
    listed = {task.name: task.schedule for task in client.tasks()}
    assert {name for name, state in listed.items() if state} == found.keys()
    assert listed["tick"] is not None
    assert listed["tick"].runs >= found["tick"].runs
    assert engine.output().count("broken fails: OSError: no battery") == 1


def test_the_example_of_the_page_runs(client: Client) -> None:
    wait_until(lambda: min(states(client)[name].runs for name in ("battery", "report")) > 1, 20, "two runs of each")
    assert states(client)["battery"].last == "7.4"
    assert states(client)["report"].failed == 0


def test_each_run_is_published_with_its_result_or_its_error(client: Client) -> None:
    with client.subscribe("schedule.*") as feed:
        seen: dict[str, Any] = {}
        for sample in feed:
            seen[sample.topic] = sample.value
            if {"schedule.tick", "schedule.broken", "schedule.second"} <= seen.keys():
                break
    tick, broken = seen["schedule.tick"], seen["schedule.broken"]
    assert tick | {"took": 0, "runs": 0, "skipped": 0, "due": 0} == {
        "ok": True,
        "result": "schedule",
        "error": None,
        "failed": 0,
        "took": 0,
        "runs": 0,
        "skipped": 0,
        "due": 0,
    }
    assert (broken["ok"], broken["result"]) == (False, None)
    assert broken["error"] == {"type": "OSError", "message": "OSError: no battery"}
    assert seen["schedule.second"]["result"] == [1, 2]


def test_nobody_else_publishes_on_the_topic_of_a_periodic_task(client: Client) -> None:
    with pytest.raises(NotAllowed, match="the engine alone publishes there"):
        client.publish("schedule.tick", 1)
    client.publish("schedule.of.somebody", 1)
    assert client.latest("schedule.of.somebody") == 1


def test_a_task_never_runs_twice_at_once_also_when_the_router_dies(
    engine: Engine, client: Client, folder: Path
) -> None:
    wait_until(lambda: states(client)["slow"].skipped > 3, 20, "runs that were skipped")
    wait_until(lambda: states(client)["slow"].is_running, 20, "a run")
    [router] = engine.pids("router")
    os.kill(router, signal.SIGKILL)
    wait_until(lambda: engine.pids("router") not in ([], [router]), 20, "another router")
    with Client(engine.address, timeout=deadline(20.0)) as another:
        wait_until(lambda: states(another)["slow"].runs > 1, 20, "runs of the next router")
    words = [line.split()[0] for line in (folder / "runs").read_text().splitlines()]
    assert words[: len(words) // 2 * 2] == ["begin", "end"] * (len(words) // 2)


def test_under_a_policy_the_schedule_may_do_what_its_entry_says(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(RULED)
    (tmp_path / "taskengine.toml").write_text(POLICY)
    with Engine(cwd=tmp_path, tasks="robot.py", keys=tmp_path / "keys") as engine:
        ring, mine = KeyRing(tmp_path / "keys"), tmp_path / "laptop"
        KeyRing(mine).accept(ring.pair("laptop", engine.address))
        with Client(engine.address, keys=mine, timeout=deadline(20.0)) as client:
            wait_until(lambda: states(client)["rounds"].runs > 2, 20, "some runs")
            assert states(client).keys() == {"rounds"}
            assert states(client)["rounds"].last == "schedule"
            assert client.latest("schedule.rounds")["ok"]
            with pytest.raises(NotAllowed, match="the engine alone publishes there"):
                client.publish("schedule.rounds", 1)
            with pytest.raises(NotAllowed):
                client.latest("schedule.wider")
        said = "the engine's policy does not let client 'schedule' use device motor"
        wait_until(lambda: f"wider fails: NotAllowed: {said}" in engine.output(), 20, "a device that it may not use")
        assert "unnamed fails: NotAllowed:" in engine.output()
        audit = [json.loads(line) for line in (ring.folder / "audit.jsonl").read_text().splitlines()]
        assert ("refused", "schedule", ["unnamed"]) in [
            (line["event"], line.get("client"), line.get("tasks")) for line in audit
        ]
