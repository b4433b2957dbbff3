"""Weaknesses of a configuration: each row of the table by itself, and the warnings that the supervisor repeats."""

from __future__ import annotations

import msgspec
import pytest

from taskengine.config.policy import Entry
from taskengine.config.settings import Settings
from taskengine.config.weaknesses import MODES, REMINDER_S, TABLE, Facts, Reminder, insecure, old_libzmq, weaknesses

SOUND = Facts(Settings())
OPEN = Settings(host="0.0.0.0")
STOPS = {"system.stop": "hardware", "legs.system.stop": "legs"}


def facts(settings: Settings | None = None, **known: object) -> Facts:
    """Those of a sound configuration, but for what is given."""
    return msgspec.structs.replace(SOUND, settings=settings or SOUND.settings, **known)


WEAK = {
    "insecure": facts(Settings(insecure=True)),
    "curve off": facts(Settings(host="0.0.0.0", curve="off")),
    "policy of nobody": facts(Settings(policy={"laptop": Entry()}, curve="off")),
    "nobody stops": facts(Settings(policy={"laptop": Entry(tasks=("servo.*",))}), clients=1, stops=STOPS),
    "not scheduled": facts(
        Settings(policy={"schedule": Entry(tasks=("tick",))}),
        clients=1,
        periodic={"tick": "", "tock": "", "wake": "arm"},
    ),
    "nobody let in": facts(OPEN),
    "keys readable": facts(keys=("/keys",)),
    "settings writable": facts(config=("/taskengine.toml",)),
    "tasks writable": facts(tasks=("/a", "/b", "/c", "/d", "/e")),
    "root": facts(is_root=True),
    "metrics open": facts(msgspec.structs.replace(OPEN, metrics_port=9100), clients=1),
    "old libzmq": facts(libzmq=(4, 3, 4)),
    "tracebacks": facts(msgspec.structs.replace(OPEN, tracebacks="on"), clients=1),
}
"""One configuration for each row, which has that weakness and no other."""
SAID = {
    "insecure": "only off loopback",
    "curve off": "nothing is encrypted",
    "policy of nobody": "anonymous",
    "nobody stops": "no client call legs.system.stop or system.stop:",
    "not scheduled": "nobody run tock, wake by the clock: name what runs so in `[policy.schedule]`",
    "nobody let in": "taskengine keys pair NAME",
    "keys readable": "read /keys:",
    "settings writable": "by /taskengine.toml:",
    "tasks writable": "by /a, /b, /c and 2 more:",
    "root": "USER",
    "metrics open": "0.0.0.0, in plain HTTP",
    "old libzmq": "4.3.4 is older than 4.3.5",
    "tracebacks": "TRACEBACKS",
}


def test_a_sound_configuration_has_none() -> None:
    assert list(weaknesses(SOUND)) == []
    assert list(weaknesses(facts(OPEN, clients=1))) == []
    scraped = msgspec.structs.replace(OPEN, metrics_port=9100)
    assert list(weaknesses(facts(scraped, clients=1, has_metrics_token=True))) == []


def test_serve_says_what_is_about_modes() -> None:
    loose = facts(OPEN, keys=("/keys",), config=("/taskengine.toml",), tasks=("/a",))
    assert len(list(weaknesses(loose, MODES))) == 3
    assert {row.name for row in TABLE} > MODES


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_each_row_holds_by_itself(row: object) -> None:
    name = row.name  # type: ignore[attr-defined]
    assert [weakness.name for weakness in TABLE if weakness.holds(WEAK[name])] == [name]
    (line,) = weaknesses(WEAK[name])
    assert SAID[name] in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("entry", "warned"),
    [
        (Entry(tasks=("system.stop",)), False),
        (Entry(tasks=("*",), members=("*",)), False),
        (Entry(tasks=("*.stop",), lanes=("legs",)), False),
        (Entry(tasks=("system.stop",), lanes=("legs",)), True),
        (Entry(tasks=("system.stop",), members=()), True),
        (Entry(tasks=("system.arm", "motor.stop")), True),
    ],
)
def test_a_policy_of_a_machine_lets_somebody_stop_it(entry: Entry, warned: bool) -> None:
    settings = Settings(policy={"laptop": entry})
    assert any("no client call" in line for line in weaknesses(facts(settings, clients=1, stops=STOPS))) == warned
    assert list(weaknesses(facts(settings, clients=1))) == [], "without a machine there is nothing to stop"


def test_nobody_stops_it_where_that_is_denied_to_everybody() -> None:
    table = {"laptop": Entry(tasks=("*",)), "brake": Entry(members=("*",), deny_tasks=("*system.stop",))}
    settings = Settings(policy=table)
    assert any("no client call" in line for line in weaknesses(facts(settings, clients=1, stops=STOPS)))


def test_an_old_libzmq_is_named_with_what_it_lacks() -> None:
    assert old_libzmq((4, 3, 5)) == old_libzmq((4, 4, 0)) == old_libzmq((5, 0, 0)) == ""
    assert "CVE" not in old_libzmq((4, 3, 3))
    assert "CVE-2020-15166" in old_libzmq((4, 3, 2))
    assert "CVE-2019-13132" not in old_libzmq((4, 3, 2))
    assert old_libzmq((4, 2, 5)).count("CVE-") == 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(), ""),
        (OPEN, ""),
        (Settings(host="0.0.0.0", curve="off", insecure=True), "anybody who reaches 0.0.0.0 can run every task"),
        (Settings(host="0.0.0.0", insecure=True), "no client has a key"),
        (Settings(insecure=True), "only off loopback"),
    ],
)
def test_what_is_said_of_insecure(settings: Settings, said: str) -> None:
    assert said in insecure(settings)
    assert bool(insecure(settings)) == settings.insecure


def test_it_is_said_at_once_and_every_hour() -> None:
    reminder = Reminder(wanted=True)
    assert [now for now in range(1000, 1000 + 3 * int(REMINDER_S)) if reminder.is_due(now)] == [1000, 4600, 8200]
    assert reminder.due == 8200 + REMINDER_S


def test_a_machine_that_slept_is_reminded_once() -> None:
    reminder = Reminder(wanted=True)
    assert [reminder.is_due(now) for now in (0.0, 100_000.0, 100_001.0)] == [True, True, False]


def test_nothing_is_said_where_nothing_is_wanted() -> None:
    reminder = Reminder(wanted=False)
    assert not reminder.is_due(1e12)
