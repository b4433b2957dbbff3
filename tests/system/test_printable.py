"""Texts that somebody else has written reach a terminal without anything that acts on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from taskengine import Client, TaskFailed
from tests.engine import Engine, deadline
from tests.integration.seedclient import SeedClient, entries, meta, task

pytestmark = pytest.mark.system
ROBOT = r'''
"""A module."""
from taskengine import task

ACTING = "\x1b]0;owned\x07\x9b2J\u202egnp.exe\x7f\u2066"

@task
def fails():
    raise ValueError(ACTING)

@task
def says():
    return {ACTING: ACTING}

@task(name="odd" + ACTING, lane="arm")
def odd():
    """Does this: \x1b[2J\u202e"""
    raise type("E" + ACTING.replace("\0", ""), (Exception,), {})(ACTING)
'''


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "robot.py").write_text(ROBOT)
    with Engine(tasks=folder / "robot.py") as engine:
        yield engine


def run(engine: Engine, *arguments: str) -> str:
    """All that a command prints; asserts that none of it acts on a terminal."""
    command = [sys.executable, "-m", "taskengine", *arguments, "--address", engine.address]
    done = subprocess.run(command, capture_output=True, timeout=deadline(30), check=False)
    text = (done.stdout + done.stderr).decode()
    assert all(character.isprintable() or character == "\n" for character in text), ascii(text)
    return text


def test_no_command_prints_what_acts_on_a_terminal(engine: Engine) -> None:
    assert "owned" in run(engine, "call", "fails")
    ((key, value),) = json.loads(run(engine, "call", "says")).items()
    assert key == value == "\x1b]0;owned\x07\x9b2J\u202egnp.exe\x7f\u2066", "as JSON it is what it was"
    run(engine, "call", "no\x1b[2J\u202esuch")
    with Client(engine.address, timeout=deadline(20)) as client:
        names = [known.name for known in client.tasks() if known.name.startswith("odd")]
    assert "owned" in run(engine, "call", names[0])
    for command in (["tasks"], ["tasks", "--json"], ["top", "--once"], ["top", "--once", "--json"]):
        assert run(engine, *command)


def test_no_error_acts_on_the_terminal_of_a_program(engine: Engine) -> None:
    with Client(engine.address, timeout=deadline(20)) as client, pytest.raises(TaskFailed) as caught:
        client.call("fails")
    for text in (str(caught.value), caught.value.traceback):
        assert "owned" in text
        assert not set("\x1b\x07\x9b\u202e\x7f\u2066") & set(text)
    with SeedClient(engine.address) as seed:
        (entry,) = entries(seed.ask(meta(length=1), task("fails")))
    assert "owned" in entry
    assert entry.isprintable()
