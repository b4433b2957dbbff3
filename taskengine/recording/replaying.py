"""`taskengine replay`: publishes recorded values again, or calls devices' tasks again, at the times of the recording.

Commands go the way of every client's: policy, limits and rules of the present hold. The replay holds the devices'
leases, alone, and renews them in its own loop. A stop ends it, and so does any other refusal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from taskengine.client.blocking import Client
from taskengine.client.lease import Lease
from taskengine.errors import BadArguments, NotAllowed, TaskEngineError, TaskFailed
from taskengine.protocol.layouts import ENGINE_TOPICS
from taskengine.recording.channels import COMMAND, EVENT, IMAGE, PUBLICATION, value_of
from taskengine.recording.reading import Recorded, RecordingError
from taskengine.recording.timeline import due, is_wanted, moment

STATE_TASK = "devices.state"
PLAYED = ("servo.", "motor.", "robot.", "gpio.", "led.", "tone.", "device.")
"""The beginnings of the tasks that move one device: a replay has leases of its own, and arms and stops nothing."""


class ReplayPace(NamedTuple):
    """Where a replay begins, and how many times as fast as the recording it goes."""

    begin: float | datetime = 0.0
    speed: float = 1.0


class Played(NamedTuple):
    """How much a replay did, and what it left out, by topic or task, and why."""

    played: int
    refused: dict[str, str]


class RecordedCall(msgspec.Struct):
    """A recorded call, as far as a replay and a table need it; times in ns of the engine's clock."""

    task: str
    lane: str = ""
    client: str = ""
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    result: Any = None
    sent: int | None = None
    received: int | None = None
    began: int | None = None
    ended: int | None = None
    error: dict[str, str] | None = None
    left_out: list[str] = []


def publish_again(
    client: Client, recorded: Iterable[Recorded], topics: Collection[str], pace: ReplayPace, prefix: str = ""
) -> Played:
    """Publish recorded values again, on their topics behind `prefix`; those of the engine itself are left out.

    A topic on which this client may not publish, such as one with a source, is left out, and told with the reason.
    """
    wanted = (
        (moment(each.message), each)
        for each in recorded
        if each.schema in (PUBLICATION, IMAGE)
        and not each.topic.startswith(ENGINE_TOPICS)
        and is_wanted(each.topic, list(topics))
    )
    refused: dict[str, str] = {}
    count = 0
    for each in _paced(due(wanted, *pace)):
        topic = prefix + each.topic
        if topic not in refused:
            try:
                client.publish(topic, value_of(each.schema, each.message.data))
                count += 1
            except (NotAllowed, BadArguments) as error:
                refused[topic] = str(error)
    return Played(count, refused)


def _paced(what: Iterable[tuple[float, Any]], turn: Callable[[], float] = lambda: 3600.0) -> Iterator[Any]:
    """Yield each when it is due; `turn` is called while it is not, and returns after how many s at most to call it."""
    begun = time.monotonic()
    for at, each in what:
        while (left := begun + at - time.monotonic()) > 0:
            time.sleep(min(left, turn()))
        yield each


def command_again(client: Client, recorded: Iterable[Recorded], pace: ReplayPace) -> Played:
    """Call the tasks of devices again that went well in the recording, under leases, and bring the devices to rest.

    Raises RecordingError where there are none, NotAllowed where the machine is stopped or a device is somebody else's,
    and what else a command raises: then nothing more is played.
    """
    devices = _devices(client)
    commands = [(at, command, device) for at, command in _commands(recorded) if (device := _device(command, devices))]
    if not commands:
        raise RecordingError("no command to a device that this engine has was recorded; was RECORD_COMMANDS set?")
    used = {device: devices[device] for _, _, device in commands}
    refused = {
        command.task: f"{', '.join(command.left_out)} was too large to be recorded"
        for _, command, _ in commands
        if command.args is None or command.kwargs is None
    }
    count = 0
    ours: dict[str, str] = {}
    leases: list[Lease] = []
    try:
        for device, lane in used.items():
            lease = _lease(client, device, lane)
            if lease is not None:
                leases.append(lease)
                ours[device] = lane
        wanted = ((at, (command, device)) for at, command, device in commands if command.task not in refused)
        for command, device in _paced(due(wanted, *pace), _Renewal(leases).turn):
            ours[device] = used[device]
            client.call(command.task, *command.args or (), **command.kwargs or {})
            count += 1
    finally:
        _rest(client, ours)
        for lease in leases:
            with contextlib.suppress(TaskEngineError):
                lease.release()
    return Played(count, refused)


def _rest(client: Client, devices: dict[str, str]) -> None:
    """Bring devices to rest, by name with their lanes: those alone that the replay had, and nobody else's."""
    for device, lane in devices.items():
        with contextlib.suppress(TaskEngineError):  # the first error tells more
            client.call(f"{lane}.device.rest" if lane else "device.rest", device)


def _devices(client: Client) -> dict[str, str]:
    """Return the lanes of the engine's devices, by name."""
    found: dict[str, str] = {}
    for task in client.tasks():
        start, name, rest = task.name.rpartition(STATE_TASK)
        if name and not rest:
            found |= dict.fromkeys(client.call(task.name), start.rstrip("."))
    return found


def _commands(recorded: Iterable[Recorded]) -> Iterator[tuple[int, RecordedCall]]:
    for each in recorded:
        if each.schema == COMMAND:
            command = msgspec.json.decode(each.message.data, type=RecordedCall)
            if command.error is None:
                yield moment(each.message), command


def _device(command: RecordedCall, devices: dict[str, str]) -> str:
    """Return the device that a command moves, "" for none, or for a task that is not played."""
    named = (command.args or [])[:1] or [(command.kwargs or {}).get("device")]
    device = named[0]
    if not isinstance(device, str) or device not in devices:
        return ""
    lane = devices[device]
    name = command.task.removeprefix(f"{lane}.") if lane else command.task
    return device if name.startswith(PLAYED) else ""


def _lease(client: Client, device: str, lane: str) -> Lease | None:
    """Begin the lease of a device, alone; None for one that has none. Raises NotAllowed."""
    try:
        return client.lease(device, exclusive=True, lane=lane)
    except BadArguments:
        return None
    except TaskFailed as error:
        if error.type == "BadArguments":
            return None
        raise


class _Renewal:
    """Renews leases in the loop that plays, at a third of their time."""

    def __init__(self, leases: list[Lease]) -> None:
        self._leases = leases
        self._pause = min((lease.seconds for lease in leases), default=3600.0) / 3
        self._next = time.monotonic() + self._pause

    def turn(self) -> float:
        """Renew what is due; return after how many s to call this again. Raises NotAllowed after a stop."""
        if time.monotonic() >= self._next:
            for lease in self._leases:
                lease.renew()
            self._next = time.monotonic() + self._pause
        return max(0.0, self._next - time.monotonic())


def told(recorded: Iterable[Recorded]) -> Iterator[dict[str, Any]]:
    """Yield what the commands and events of a recording say, each as a map with `at`, in s of the wall clock."""
    for each in recorded:
        if each.schema in (COMMAND, EVENT):
            kind = "command" if each.schema == COMMAND else "event"
            yield {"at": moment(each.message) / 1e9, "kind": kind} | msgspec.json.decode(each.message.data)
