"""The table `[policy]` of the settings file, and the rights that it gives to clients. Pure.

[policy.laptop]                     # a client, by the name of its key
tasks = ["servo.*", "task_count"]
devices = ["pan", "tilt"]
publish = ["drive.*"]

[policy.dashboards]                 # a group
members = ["tablet", "wall-*"]
subscribe = ["hardware.*"]

Once there is a policy, everything that it does not name is denied. A client has the rights of its own entry and of its
groups together, without what any of them denies, and the lowest of their rates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from taskengine.protocol.messages import Priority

ANONYMOUS = "anonymous"
"""The name of a client without a key, where nothing is encrypted."""
MAX_PATTERNS = 4096
"""How many lists of patterns are kept compiled."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rights of a client, or with `members` of a group. All fields but priorities and calls are patterns of names.

    `lanes` restricts `tasks` further. `publish` and `subscribe` are of topics. ZeroMQ subscribes to all topics with a
    common beginning, so a pattern of `subscribe` may have only one `*`, at its end. No other entry gives a right that
    an entry denies (`deny_tasks` and so on). The rates are in tasks, bytes, and microseconds of the router's time, a
    second. Calls of the tasks that `audit` names are noted in the audit log.
    """

    members: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    priorities: tuple[Literal["low", "normal", "high", "urgent"], ...] = ("low", "normal", "high")
    calls: tuple[Literal["reload", "stats"], ...] = ()
    deny_tasks: tuple[str, ...] = ()
    deny_devices: tuple[str, ...] = ()
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()
    rate: float | None = None
    rate_bytes: float | None = None
    rate_microseconds: float | None = None
    audit: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, pattern in (
            *(("subscribe", pattern) for pattern in self.subscribe),
            *(("deny_subscribe", pattern) for pattern in self.deny_subscribe),
        ):
            if not pattern.endswith("*") or set(pattern[:-1]) & set("*?["):
                raise ValueError(
                    f"{key}: {pattern!r}: a subscription takes all topics that begin so, therefore a pattern "
                    "ends in its only *, such as 'hardware.*'"
                )
        for key, unit in (("rate", "tasks"), ("rate_bytes", "bytes"), ("rate_microseconds", "microseconds")):
            rate = getattr(self, key)
            if rate is not None and not rate > 0:
                raise ValueError(f"{key}: expected {unit} a second, more than 0, not {rate}")

    def applies_to(self, key: str, name: str) -> bool:
        """Return whether this entry, whose key in the table is `key`, applies to the client `name`."""
        return key == name if self.members is None else matches(name, self.members)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether one of the patterns matches the name; `*`, `?` and `[...]` as in the shell, case-sensitive."""
    return bool(patterns) and _compiled(patterns).match(name) is not None


@lru_cache(MAX_PATTERNS)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Compile the patterns into one, because clients choose how many names are looked up."""
    return re.compile("|".join(map(translate, patterns)))


class Rates(NamedTuple):
    """How much a client may send in a second: tasks, bytes, and microseconds of the router.

    Infinite without a limit.
    """

    tasks: float = float("inf")
    bytes: float = float("inf")
    microseconds: float = float("inf")


class PolicyAnswer(NamedTuple):
    """Whether something is allowed, and the reason, in a clause for each step."""

    is_allowed: bool
    why: list[str]


class Rights(NamedTuple):
    """The rights of one client: the entries that apply to it."""

    entries: tuple[Entry, ...]

    def may_call(self, task: str, lane: str) -> bool:
        """Return whether the client may call the task in its lane."""
        return any(
            matches(task, entry.tasks) and matches(lane, entry.lanes) for entry in self.entries
        ) and not self._denies(task, "deny_tasks")

    def may_use(self, device: str) -> bool:
        """Return whether a task of the client may act on the device."""
        return any(matches(device, entry.devices) for entry in self.entries) and not self._denies(
            device, "deny_devices"
        )

    def may_publish(self, topic: str) -> bool:
        """Return whether the client may publish on the topic."""
        return any(matches(topic, entry.publish) for entry in self.entries) and not self._denies(topic, "deny_publish")

    def may_subscribe(self, prefix: str) -> bool:
        """Return whether the client may get all topics that begin with `prefix`, none of which may be denied."""
        denied = (pattern[:-1] for entry in self.entries for pattern in entry.deny_subscribe)
        if any(prefix.startswith(start) or start.startswith(prefix) for start in denied):
            return False
        patterns = (pattern for entry in self.entries for pattern in entry.subscribe)
        return any(prefix.startswith(pattern[:-1]) for pattern in patterns)

    def may_prioritise(self, priority: Priority) -> bool:
        """Return whether the client may send packages of that priority."""
        entries = self.entries or (Entry(),)
        return any(priority.name.lower() in entry.priorities for entry in entries)

    def may_ask(self, call: Literal["reload", "stats"]) -> bool:
        """Return whether the client may make this call, which concerns the engine itself."""
        return any(call in entry.calls for entry in self.entries)

    def is_noted(self, task: str) -> bool:
        """Return whether an allowed call of the task is noted in the audit log."""
        return any(matches(task, entry.audit) for entry in self.entries)

    @property
    def rates(self) -> Rates:
        """Return the lowest rate of each kind among the entries."""
        return Rates(*(self._least(key) for key in ("rate", "rate_bytes", "rate_microseconds")))

    def _least(self, key: str) -> float:
        return min((rate for entry in self.entries if (rate := getattr(entry, key)) is not None), default=float("inf"))

    def _denies(self, name: str, key: str) -> bool:
        return any(matches(name, getattr(entry, key)) for entry in self.entries)


class Policy:
    """The table by the names of clients and groups."""

    def __init__(self, table: Mapping[str, Entry]) -> None:
        self._table = table

    def rights(self, name: str) -> Rights:
        """Return the rights of the client with this name."""
        return Rights(tuple(self._entries(name).values()))

    def explain(self, name: str, task: str, lane: str, device: str | None = None) -> PolicyAnswer:
        """Return whether the client may call the task in its lane, for the device, and which entries decide that."""
        entries = self._entries(name)
        if not entries:
            return PolicyAnswer(False, [f"no entry of the policy applies to {name}"])
        may_call, why = _explain(entries, f"call {task}", task, "tasks", lane)
        if not may_call or device is None:
            return PolicyAnswer(may_call, [why])
        may_use, why_device = _explain(entries, f"use {device}", device, "devices")
        return PolicyAnswer(may_use, [why, why_device])

    def _entries(self, name: str) -> dict[str, Entry]:
        return {key: entry for key, entry in self._table.items() if entry.applies_to(key, name)}


def may_call_any(policy: Policy | None, name: str, lanes: Mapping[str, str]) -> bool:
    """Return whether the client may call one of these tasks, given with their lanes; without a policy it may."""
    return policy is None or any(policy.rights(name).may_call(task, lane) for task, lane in lanes.items())


def _explain(
    entries: Mapping[str, Entry], action: str, name: str, key: Literal["tasks", "devices"], lane: str | None = None
) -> tuple[bool, str]:
    """Return whether one of the entries allows the action and none denies it, and which one decides that."""
    for place, pattern in _matching(entries, f"deny_{key}", name):
        return False, f'may not {action}: [policy.{place}] has "{pattern}" in deny_{key}'
    elsewhere = ""
    for place, pattern in _matching(entries, key, name):
        if lane is None or matches(lane, entries[place].lanes):
            return True, f'may {action}: [policy.{place}] has "{pattern}" in {key}'
        elsewhere = f', and [policy.{place}] not in lane "{lane}"'
    listed = ", ".join(f"[policy.{place}]" for place in entries)
    return False, f"may not {action}: none of {listed} names it{elsewhere}"


def _matching(entries: Mapping[str, Entry], key: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield (entry, pattern) for each pattern that matches the name."""
    for place, entry in entries.items():
        yield from ((place, pattern) for pattern in getattr(entry, key) if fnmatchcase(name, pattern))
