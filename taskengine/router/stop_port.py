"""The process that takes stops of the machine from other machines, past the router: a port of its own, STOP_PORT.

It does nothing else, and the guardian does not wait for it: a flood here costs answers, and no pin its safe state. The
policy holds as at the router: a client may stop the machine that may call `system.stop` of some lane. A reload tells
the listener the policy as it is then.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from functools import partial

import zmq

from taskengine._socket import Port, Waiter, seed_ids
from taskengine.broker import binary
from taskengine.config.machine import Machine
from taskengine.config.policy import ANONYMOUS, Entry, Policy
from taskengine.config.settings import Settings
from taskengine.errors import NotAllowed, ProtocolError, TaskEngineError, shortened
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.limits import MAX_HEAD, MAX_NAME_LENGTH
from taskengine.protocol.messages import NO_SERIAL, RequestKind, decode_request, decode_stop, serial_of
from taskengine.router.connection_monitor import ConnectionMonitor
from taskengine.router.connection_table import is_own_id
from taskengine.router.emergency import EmergencyStops, Route
from taskengine.router.permissions import ClientTable, KnownClient
from taskengine.router.replies import ReplySender
from taskengine.router.tuning import UNREAD_MESSAGES
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.control import Online, PolicyChanged, StartFailed, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.hosts import needs_ipv6
from taskengine.runtime.intervals import TURN_MESSAGES
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.runtime.rlimits import limit_files, limit_memory, most_connections, router_memory
from taskengine.security import credentials
from taskengine.security.audit import Audit, file_of
from taskengine.security.authenticator import KeyAuthenticator
from taskengine.security.credentials import Credentials
from taskengine.security.keys import fingerprint

CONTROL, CLIENTS, NEWS, QUESTION = 1, 2, 4, 8
"""What is ready, by its place among the sources of the waiter."""
LOOK_MS = 1
"""How often the lanes are looked at while a stop waits for its answer."""
FRAMES = 4
"""A route of two, a head and a body."""
LINGER_MS = 200


class StopListener:
    """The socket, who is let in by it, and the loop."""

    def __init__(
        self,
        settings: Settings,
        security: Credentials | None,
        machine: Machine,
        control: ControlChannel,
        journal: LogBuffer,
    ) -> None:
        self._clock = MachineClock()
        self._machine = machine
        self._control = control
        self._journal = journal
        seed_ids(int.from_bytes(os.urandom(4)))
        self._context = zmq.Context()
        self._audit = Audit(file_of(settings), journal.warn)
        self._audit.open()
        self._gate = KeyAuthenticator(self._context, security, journal.warn, self._audit.note) if security else None
        self._visitors = ClientTable(None if settings.policy is None else Policy(settings.policy))
        self._visitors.learn(machine.stop_lanes)
        self._halting = EmergencyStops(machine, int, partial(self._audit.note, by="STOP_PORT"))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.sndhwm, self._socket.rcvhwm = UNREAD_MESSAGES, TURN_MESSAGES
        self._socket.router_mandatory = 1
        self._socket.linger = LINGER_MS
        self._socket.maxmsgsize = MAX_HEAD
        self._socket.handshake_ivl = math.ceil(settings.handshake_time * 1000)
        self._socket.ipv6 = needs_ipv6(settings.stop_address)
        if security:
            security.serve(self._socket, credentials.FRONTEND)
        self._port = Port(self._socket, is_gated=self._gate is not None)
        self._attendance = ConnectionMonitor(
            *(self._context, self._socket, self._port, _part),
            *(most_connections(settings), self._audit.note),
        )
        self._socket.bind(settings.stop_address)
        self._outlet = ReplySender(self._port, self._attendance)

    def serve(self) -> None:
        """Take stops until the supervisor says that it is over, or is gone."""
        questions = [self._gate.port] if self._gate else []
        waiter = Waiter(self._control.fileno(), self._port, self._attendance.news, *questions)
        while True:
            ready = waiter.wait(self._wait_ms())
            if ready & CONTROL and self._is_over():
                break
            if ready & QUESTION and self._gate:
                self._gate.handle()
            if ready & CLIENTS:
                self._take()
            else:
                self._attendance.settle()
            if ready & NEWS:
                self._attendance.read()
            for answer in self._halting.answers(time.monotonic_ns()):
                self._answer(*answer)
            self._journal.flush()
        self._attendance.close()
        self._socket.close()
        if self._gate:
            self._gate.stop()
        self._context.term()

    def obey(self, policy: Mapping[str, Entry] | None) -> None:
        """This is the policy from here on."""
        self._visitors.obey(None if policy is None else Policy(policy))

    def _is_over(self) -> bool:
        """Do what the supervisor says; True where it says that it is time to stop, or is gone."""
        order = self._control.next_order()
        if isinstance(order, PolicyChanged):
            self.obey(order.policy)
        return isinstance(order, StopProcess)

    def _wait_ms(self) -> int:
        if self._halting.waiting:
            return LOOK_MS
        return PAUSE_MS if self._journal.pending else -1

    def _take(self) -> None:
        """Take what clients say, but no more than a turn's worth."""
        for _ in range(TURN_MESSAGES):
            message = self._port.receive_request(MAGIC, FRAMES)
            if message is None:
                return
            frames = message[0]
            envelope = 2 if len(frames) > 1 and not frames[1] else 1
            route, frames = tuple(frames[:envelope]), frames[envelope:]
            is_itself = self._attendance.greet(route[0], self._port.user)
            try:
                if not is_itself:
                    raise NotAllowed("another connection has this routing id")
                if not frames:
                    raise ProtocolError("a message begins with a head")
                self._stop(route, frames)
            except TaskEngineError as error:
                self._answer(route, serial_of(frames[0]) if frames else NO_SERIAL, error)

    def _answer(self, route: Route, serial: int, error: TaskEngineError | None) -> None:
        """Answer with nil, or the error."""
        stamp = self._clock.told(), self._clock.boot, self._machine.stop_number()
        message = binary.refusal(serial, error, stamp) if error else binary.value_reply(serial, None, stamp)
        self._outlet.send(route, message)

    def _stop(self, route: Route, frames: list[bytes]) -> None:
        request = decode_request(frames[0])
        if request.kind != RequestKind.STOP:
            raise ProtocolError("this port takes STOP and nothing else; the rest is for the engine's own address")
        visitor, asked = self._visitor(route), decode_stop(frames)
        try:
            for answer in self._halting.stop(route, request.serial, asked, visitor, time.monotonic_ns()):
                self._answer(*answer)
        except NotAllowed as error:
            self._audit.note("refused", client=visitor.name, reason=str(error))
            raise

    def _visitor(self, route: Route) -> KnownClient:
        """Whoever sent what was received last. Raises NotAllowed where its key was revoked."""
        if self._gate is None:
            return self._visitors.of(ANONYMOUS)
        if not is_own_id(route[0]):
            raise NotAllowed("a connection that is encrypted may not set its routing id (ZMQ_ROUTING_ID)")
        self._gate.refresh()
        name = self._gate.name_of(self._port.user)
        if name is None:
            self._audit.note("refused", fingerprint=fingerprint(self._port.user), reason="its key was revoked")
            raise NotAllowed("the engine does not let this key in any more")
        return self._visitors.of(shortened(name, MAX_NAME_LENGTH))


def _part(client: bytes) -> None:
    """A client has left: nothing of its is in flight here."""


def run(
    settings: Settings, security: Credentials | None, machine: Machine, control: ControlChannel, journal: LogBuffer
) -> None:
    """The listener's process. Tells the supervisor `online`, or `failed` with the reason."""
    limit_files(settings)
    limit_memory(router_memory(settings))
    try:
        listener = StopListener(settings, security, machine, control, journal)
    except zmq.ZMQError as error:
        control.send(StartFailed(f"the stop port cannot be served: {error}"))
        return
    journal.say(f"Starting [STOP-{os.getpid()}] on socket: {settings.stop_address.removeprefix('tcp://')}")
    control.send(Online())
    listener.serve()
