"""The table of weaknesses of a configuration: what is checked, when it is a weakness, and the message. Pure.

`Facts` come from `inspection.py`. `taskengine check` prints the result of `weaknesses`; the supervisor prints some of
it at the start and again every hour.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import NamedTuple

import msgspec

from taskengine.config.policy import Policy, Rights
from taskengine.config.settings import Settings
from taskengine.protocol.layouts import SCHEDULE_CLIENT

REMINDER_S = 3600.0
TESTED_LIBZMQ = (4, 3, 5)
LIBZMQ_FLAWS = (
    ((4, 3, 1), "CVE-2019-6250: who is let in can run code of its own"),
    ((4, 3, 2), "CVE-2019-13132: who is not let in can overwrite the stack of a CURVE server"),
    ((4, 3, 3), "CVE-2020-15166: who is not let in can keep a CURVE server from hearing its clients"),
    ((4, 3, 3), "CVE-2021-20235 and CVE-2021-20237: without CURVE strangers can overwrite and use up memory"),
    ((4, 3, 5), "what was mended between January 2021 and October 2023"),
)
"""The first version of libzmq without a flaw, and the flaw; from its release notes and security advisories."""


class Facts(msgspec.Struct, frozen=True):
    """The facts by which a configuration is judged. Paths are as text."""

    settings: Settings
    clients: int = 0
    """How many keys are let in."""
    is_root: bool = False
    """Whether tasks run as root."""
    libzmq: tuple[int, ...] = TESTED_LIBZMQ
    keys: tuple[str, ...] = ()
    """Files and folders of the keys that others can read."""
    config: tuple[str, ...] = ()
    """The settings' file, if others can change or replace it."""
    tasks: tuple[str, ...] = ()
    """Task files and folders that others can change."""
    has_metrics_token: bool = False
    """Whether scrapers of the metrics have to show a token."""
    stops: Mapping[str, str] = {}
    """The tasks that stop the machine, with the lane of each."""
    periodic: Mapping[str, str] = {}
    """The periodic tasks, with the lane of each."""


class Weakness(NamedTuple):
    """One row: `name` for tests, when it `holds`, and the message that it `says`."""

    name: str
    holds: Callable[[Facts], object]
    says: Callable[[Facts], str]


def old_libzmq(version: tuple[int, ...]) -> str:
    """Return a warning if libzmq is older than the version that the engine is tested with; "" otherwise."""
    flaws = [flaw for first, flaw in LIBZMQ_FLAWS if version < first]
    if not flaws:
        return ""
    have, tested = ".".join(map(str, version)), ".".join(map(str, TESTED_LIBZMQ))
    return f"libzmq {have} is older than {tested} and lacks the fixes for {'; '.join(flaws)}. `pip install -U pyzmq`"


def insecure(settings: Settings) -> str:
    """Return the warning for the setting INSECURE; "" if it is not set."""
    if not settings.insecure:
        return ""
    if settings.on_loopback:
        return "INSECURE is set, and has a meaning only off loopback: take it out before HOST changes"
    if settings.is_curved:
        return f"INSECURE: the engine serves on {settings.host} although no client has a key"
    return f"INSECURE: anybody who reaches {settings.host} can run every task, and read and change what others send"


class Reminder:
    """Tells when a message is due: at once, and then every REMINDER_S; never if it is not `wanted`."""

    def __init__(self, *, wanted: bool) -> None:
        self.due = float("-inf") if wanted else float("inf")

    def is_due(self, now: float) -> bool:
        """Return whether the message is due, and count it as given."""
        if now < self.due:
            return False
        self.due = now + REMINDER_S
        return True


def _may_stop(facts: Facts) -> bool:
    """Return whether an entry of the policy allows a task that stops the machine, and none denies it to all."""
    entries = [entry for entry in (facts.settings.policy or {}).values() if entry.members != ()]
    everybodys = [entry for entry in entries if "*" in (entry.members or ())]
    rights = [Rights((entry, *everybodys)) for entry in entries]
    return any(one.may_call(task, lane) for one in rights for task, lane in facts.stops.items())


def _not_scheduled(facts: Facts) -> list[str]:
    """Return the periodic tasks that the policy does not let the engine's own client call."""
    if facts.settings.policy is None:
        return []
    rights = Policy(facts.settings.policy).rights(SCHEDULE_CLIENT)
    return sorted(task for task, lane in facts.periodic.items() if not rights.may_call(task, lane))


def _listed(paths: tuple[str, ...]) -> str:
    rest = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + rest


TABLE = (
    Weakness("insecure", lambda facts: facts.settings.insecure, lambda facts: insecure(facts.settings)),
    Weakness(
        "curve off",
        lambda facts: not (facts.settings.on_loopback or facts.settings.is_curved),
        lambda facts: f'CURVE is off and HOST is {facts.settings.host}: nothing is encrypted. Set CURVE to "auto"',
    ),
    Weakness(
        "policy of nobody",
        lambda facts: facts.settings.policy is not None and not facts.settings.is_curved,
        lambda facts: (
            'with CURVE off the policy tells nobody from anybody: all are anonymous to it. Set CURVE to "auto"'
        ),
    ),
    Weakness(
        "nobody stops",
        lambda facts: facts.stops and facts.settings.policy is not None and not _may_stop(facts),
        lambda facts: (
            f"the policy lets no client call {' or '.join(sorted(facts.stops))}: let everybody stop the machine, "
            '`[policy.everyone]` with members = ["*"] and tasks = ["system.stop"]'
        ),
    ),
    Weakness(
        "not scheduled",
        _not_scheduled,
        lambda facts: (
            f"the policy lets nobody run {', '.join(_not_scheduled(facts))} by the clock: name what runs so in "
            f"`[policy.{SCHEDULE_CLIENT}]`, tasks = [...]"
        ),
    ),
    Weakness(
        "nobody let in",
        lambda facts: facts.settings.is_curved and not facts.clients,
        lambda facts: "no client has a key, so nobody is let in: `taskengine keys pair NAME` makes one",
    ),
    Weakness(
        "keys readable",
        lambda facts: facts.keys,
        lambda facts: f"others can read {_listed(facts.keys)}: `chmod 700` keeps the keys' folders to their owner",
    ),
    Weakness(
        "settings writable",
        lambda facts: facts.config,
        lambda facts: f"others can change the settings, by {_listed(facts.config)}: `chmod go-w`, and own it",
    ),
    Weakness(
        "tasks writable",
        lambda facts: facts.tasks,
        lambda facts: f"others can change what tasks do, by {_listed(facts.tasks)}: `chmod go-w`, and own it",
    ),
    Weakness(
        "root",
        lambda facts: facts.is_root,
        lambda facts: "tasks run as root: name a user for them with USER, or start the engine as one",
    ),
    Weakness(
        "metrics open",
        lambda facts: facts.settings.metrics_port and not (facts.settings.on_loopback or facts.has_metrics_token),
        lambda facts: (
            f"METRICS_PORT answers anybody who reaches {facts.settings.host}, in plain HTTP, without a key: "
            "`taskengine keys metrics` makes a token that scrapers have to show"
        ),
    ),
    Weakness("old libzmq", lambda facts: old_libzmq(facts.libzmq), lambda facts: old_libzmq(facts.libzmq)),
    Weakness(
        "tracebacks",
        lambda facts: facts.settings.has_tracebacks and not facts.settings.on_loopback,
        lambda facts: 'TRACEBACKS is on off loopback: clients are shown code and paths. Set it to "auto"',
    ),
)


MODES = frozenset({"keys readable", "settings writable", "tasks writable"})
"""The rows about modes and owners of files, which `serve` reports too."""


def weaknesses(facts: Facts, names: Container[str] | None = None) -> Iterator[str]:
    """Yield a line for each weakness, in the order of the table; with `names` only for those rows."""
    for weakness in TABLE:
        if (names is None or weakness.name in names) and weakness.holds(facts):
            yield weakness.says(facts)
