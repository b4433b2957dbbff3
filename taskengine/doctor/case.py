"""Collects the case for the checks: the settings, the devices, what the engine answers, and our own Python."""

from __future__ import annotations

import os
import platform
import pwd
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from taskengine.client.blocking import Client
from taskengine.config.settings import Settings
from taskengine.config.weaknesses import TABLE, weaknesses
from taskengine.doctor.observation import Case, EngineAnswer
from taskengine.errors import EngineUnreachable, KeysError, TaskEngineError
from taskengine.protocol.release import release
from taskengine.runtime.rundir import FRONTEND, served
from taskengine.security.credentials import libzmq_version
from taskengine.security.identity import borrowed, find_identity
from taskengine.security.keys import KeyRing
from taskengine.supervisor.inspection import inspect

ROUND_TRIPS = 9
TOLD_ELSEWHERE = frozenset({"old libzmq", "nobody let in"})
"""Weaknesses that have a row of their own."""
IN_USE = ", in use by "
"""What follows a device's name in `Machine.owners` if something has its line."""


def case_of(load: Callable[[], Settings], config: Path | None, answer: Callable[[], EngineAnswer]) -> Case:
    """Return the case of the engine whose settings `load` loads, from the file `config`; `answer` asks the engine."""
    problem, settings, clients = "", Settings(), 0
    told: tuple[str, ...] = ()
    devices: dict[int, str] = {}
    used: dict[int, str] = {}
    try:
        settings = load()
        clients = _clients(settings)
        told = tuple(_weaknesses(settings, config, clients))
        devices, used = _pins(settings)
    except (KeysError, OSError, TaskEngineError) as error:
        problem = str(error)
    return Case(
        settings=settings,
        reply=answer(),
        user=_user(),
        folder=str(Path.cwd() if config is None else config.absolute().parent),
        problem=problem,
        release=release(),
        python=sys.version_info[:3],
        machine=platform.machine(),
        prefix=sys.prefix,
        in_venv=sys.prefix != sys.base_prefix,
        libzmq=libzmq_version(),
        weaknesses=told,
        clients=clients,
        devices=devices,
        used=used,
    )


def ask(address: str, keys: Path | None, timeout: float) -> EngineAnswer:
    """Return the median of some round trips to the engine, or why there was none within `timeout` s."""
    is_ours = served(address, FRONTEND) is not None
    times, theirs = [], ""
    try:
        with Client(address, "doctor", timeout, keys) as client:
            for _ in range(ROUND_TRIPS):
                before = time.monotonic()
                theirs = client.info().release
                times.append(time.monotonic() - before)
    except EngineUnreachable:
        return EngineAnswer(address, why="nobody answers", is_ours=is_ours)
    except TaskEngineError as error:
        return EngineAnswer(address, why=str(error), is_ours=is_ours)
    return EngineAnswer(address, statistics.median(times), is_ours=is_ours, release=theirs)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _clients(settings: Settings) -> int:
    if not settings.is_curved:
        return 0
    with borrowed(find_identity(settings.user, settings.group)):
        return len(KeyRing(settings.keys_folder).allowed())


def _weaknesses(settings: Settings, config: Path | None, clients: int) -> Iterator[str]:
    facts = inspect(settings, config, find_identity(settings.user, settings.group), clients)
    return weaknesses(facts, {weakness.name for weakness in TABLE} - TOLD_ELSEWHERE)


def _pins(settings: Settings) -> tuple[dict[int, str], dict[int, str]]:
    """Return the device of each GPIO that the settings name, and who uses those that are in use."""
    machine = settings.machine()
    if machine is None:
        return {}, {}
    named = {gpio for device in machine.layout.devices.values() for gpio in device.gpios()}
    told = {gpio: text.partition(IN_USE) for gpio, text in machine.owners().items() if gpio in named}
    return {gpio: device for gpio, (device, _, _) in told.items()}, {
        gpio: user for gpio, (_, _, user) in told.items() if user
    }
