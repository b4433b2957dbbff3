from __future__ import annotations

import contextvars
import threading

import pytest

from taskengine import NotAllowed, Origin, caller, check_device
from taskengine.config.policy import Entry, Policy
from taskengine.registry.registry import Registry
from taskengine.worker.context import may_call, set_origin, set_policy


@pytest.fixture(autouse=True)
def policy() -> None:
    """A policy, and nobody's task."""
    set_policy(Policy({"laptop": Entry(devices=("pan",)), "tablet": Entry(devices=("lamp",))}))


def may_use(device: str) -> bool:
    try:
        check_device(device)
    except NotAllowed:
        return False
    return True


def test_each_task_has_its_callers_rights() -> None:
    assert not may_use("pan")
    for name, device, other in (("laptop", "pan", "lamp"), ("tablet", "lamp", "pan"), ("laptop", "pan", "lamp")):
        set_origin(Origin(name, b"c"))
        assert caller() == name
        assert may_use(device)
        assert not may_use(other)


def test_a_thread_of_a_task_has_no_rights_but_in_its_context() -> None:
    set_origin(Origin("laptop", b"c"))
    context, found = contextvars.copy_context(), []

    def ask() -> None:
        found.append((caller(), may_use("pan")))

    threads = [threading.Thread(target=ask), threading.Thread(target=context.run, args=[ask])]
    for thread in threads:
        thread.start()
        set_origin(Origin("tablet", b"c"))
        thread.join()
    assert found == [("", False), ("laptop", True)]


def test_without_a_policy_everything_may_be_used() -> None:
    set_policy(None)
    set_origin(Origin(connection=b"c"))
    assert may_use("pan")


def test_near_names_are_of_tasks_that_the_caller_may_call() -> None:
    registry = Registry.load(["taskengine.tasks"])
    set_policy(Policy({"laptop": Entry(tasks=("task_count", "task_cont"))}))
    set_origin(Origin(client="laptop", received=1))
    assert registry.nearest("task_cont", may_call) == ["task_count"]
    set_origin(Origin(client="stranger", received=1))
    assert registry.nearest("task_cont", may_call) == []
    set_policy(None)
    assert registry.nearest("task_sleap", may_call)[0] == "task_sleep"
