"""Stops of the machine that come by a port of their own: who may, what they do, and what they are answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from taskengine import _fastpath, packed
from taskengine.errors import NotAllowed, ProtocolError, TaskFailed
from taskengine.messages import Kind, Reply, decode_request, encode_reply
from taskengine.package import Message
from taskengine.policy import Policy

CONFIRM_NS = 200_000_000
"""How long a stop waits for the lanes at most before it is answered."""
WAITING = 1024
"""Stops that wait; more are answered at once."""
Route = tuple[bytes, ...]


class Stoppable(Protocol):
    """The machine, as far as it can be stopped."""

    @property
    def stop_lanes(self) -> Mapping[str, str]:
        """The tasks that stop it, with the lane of each."""

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        """Stop; the number of the stop."""

    def unconfirmed(self) -> list[str]:
        """The lanes that are not known to be safe."""


class Answer(NamedTuple):
    """What to say to whom."""

    route: Route
    frames: Message


class _Waiting(NamedTuple):
    route: Route
    serial: int
    number: int
    until: int


class Stops:
    """Stops `machine` for those whom the policy lets, and answers as soon as its lanes are safe. Pure."""

    def __init__(self, machine: Stoppable, policy: Policy | None) -> None:
        self._machine = machine
        self._policy = policy
        self._waiting: list[_Waiting] = []

    @property
    def is_waiting(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._waiting)

    def may_stop(self, client: str) -> bool:
        """The policy lets this client stop the machine."""
        return may_stop(self._policy, self._machine.stop_lanes, client)

    def take(self, route: Route, frames: list[bytes], client: str, now: int) -> None:
        """A client has sent these frames, at `now` in ns. Raises NotAllowed, ProtocolError."""
        request = decode_request(frames[0])
        if request.kind != Kind.STOP:
            raise ProtocolError("this port takes STOP and nothing else; the rest is for the engine's own address")
        id, why = _read(frames)
        if not self.may_stop(client):
            raise NotAllowed(f"the engine's policy does not let client {client!r} stop the machine")
        number = self._machine.stop(now, by=client, why=why, id=id)
        until = now if len(self._waiting) >= WAITING else now + CONFIRM_NS
        self._waiting.append(_Waiting(route, request.serial, number, until))

    def answers(self, now: int) -> list[Answer]:
        """The answers that can be given at `now`, in ns."""
        if not self._waiting:
            return []
        late = self._machine.unconfirmed()
        over = [one for one in self._waiting if not late or one.until <= now]
        self._waiting = [one for one in self._waiting if late and one.until > now]
        return [Answer(one.route, _answer(one, late)) for one in over]


def may_stop(policy: Policy | None, lanes: Mapping[str, str], client: str) -> bool:
    """The policy lets a client call one of these tasks, given with their lanes."""
    if policy is None:
        return True
    rights = policy.rights(client)
    return any(rights.may_call(task, lane) for task, lane in lanes.items())


def _read(frames: list[bytes]) -> tuple[bytes, str]:
    """The id of a stop, and why. Raises ProtocolError."""
    if len(frames) > 2:
        raise ProtocolError("STOP has 2 frames, head and body")
    if len(frames) < 2:
        return b"", ""
    try:
        return msgspec.msgpack.decode(frames[1], type=tuple[bytes, str])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a stop is an id and why: {error}") from None


def _answer(stop: _Waiting, late: list[str]) -> Message:
    if late:
        text = f"stopped, but lane {', '.join(late)} has not confirmed that it is safe"
        return packed.refusal(stop.serial, TaskFailed(text, type="NotConfirmed"))
    return [encode_reply(Reply(stop.serial, 1, stop=stop.number)), _fastpath.encode(None)]
