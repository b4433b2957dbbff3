"""Who may do what: the table `[policy]` of the settings file, and the rights that it gives to a client. Pure.

    [policy.laptop]                     # a client, by the name of its key
    tasks = ["servo.*", "task_count"]
    devices = ["pan", "tilt"]
    publish = ["drive.*"]

    [policy.dashboards]                 # a group
    members = ["tablet", "wall-*"]
    subscribe = ["hardware.*"]

Once there is a policy, what is not named is denied. A client has the rights of its own entry and of its groups
together, and the least of their rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import msgspec

from taskengine.messages import Priority

ANONYMOUS = "anonymous"
"""What a client is called where nothing is encrypted, and nobody shows a key."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client, or with `members` a group of them, may do. All but priorities and calls are patterns of names.

    `lanes` restricts `tasks` further. `publish` and `subscribe` are of topics; since ZeroMQ gives whoever subscribes to
    a topic all that begin so, a pattern of `subscribe` ends in its only `*`. `rate` is in tasks a second.
    """

    members: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    priorities: tuple[Literal["low", "normal", "high", "urgent"], ...] = ("low", "normal", "high")
    calls: tuple[Literal["reload", "stats"], ...] = ()
    rate: float | None = None

    def __post_init__(self) -> None:
        for pattern in self.subscribe:
            if not pattern.endswith("*") or set(pattern[:-1]) & set("*?["):
                raise ValueError(
                    f"subscribe: {pattern!r}: whoever subscribes to a topic gets all that begin so, thus a pattern "
                    "ends in its only *, such as 'hardware.*'"
                )
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate: expected tasks a second, more than 0, not {self.rate}")

    def applies_to(self, key: str, name: str) -> bool:
        """The entry, which is called `key`, is of the client `name`."""
        return matches(name, self.members) if self.members else key == name


def matches(name: str, patterns: Iterable[str]) -> bool:
    """One of the patterns is of the name; `*`, `?` and `[...]` as in the shell, upper case told from lower."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Rights(NamedTuple):
    """What one client may do: the entries that apply to it."""

    entries: tuple[Entry, ...]

    def may_call(self, task: str, lane: str) -> bool:
        """Have the task run in its lane."""
        return any(matches(task, entry.tasks) and matches(lane, entry.lanes) for entry in self.entries)

    def may_use(self, device: str) -> bool:
        """Have a task act on the device."""
        return any(matches(device, entry.devices) for entry in self.entries)

    def may_publish(self, topic: str) -> bool:
        """Publish on the topic."""
        return any(matches(topic, entry.publish) for entry in self.entries)

    def may_subscribe(self, prefix: str) -> bool:
        """Get what is published on all topics that begin so."""
        patterns = (pattern for entry in self.entries for pattern in entry.subscribe)
        return any(prefix.startswith(pattern[:-1]) for pattern in patterns)

    def may_prioritise(self, priority: Priority) -> bool:
        """Send packages of that priority; who has no entry may call nothing with it."""
        entries = self.entries or (Entry(),)
        return any(priority.name.lower() in entry.priorities for entry in entries)

    def may_ask(self, call: Literal["reload", "stats"]) -> bool:
        """Ask what concerns the engine itself."""
        return any(call in entry.calls for entry in self.entries)

    @property
    def rate(self) -> float:
        """Tasks a second; infinite where there is no limit."""
        return min((entry.rate for entry in self.entries if entry.rate is not None), default=float("inf"))


class Policy:
    """The table, by the names of clients and groups."""

    def __init__(self, table: Mapping[str, Entry]) -> None:
        self._table = table

    def rights(self, name: str) -> Rights:
        """Those of the client with this name."""
        return Rights(tuple(entry for key, entry in self._table.items() if entry.applies_to(key, name)))
