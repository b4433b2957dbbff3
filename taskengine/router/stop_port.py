"""The stop listener: a process that takes stops from other machines at a port of its own, STOP_PORT, past the router.

It does nothing else, and the guardian does not wait for it: a flood here costs answers, but every pin still gets its
safe state. The policy holds as at the router: a client may stop the machine if it may call `system.stop` of some lane.
A reload gives the listener the new policy.
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
from taskengine.protocol.messages import NO_SERIAL, RequestKind, Stamp, decode_request, decode_stop, serial_of
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
"""The bits of `Waiter.wait`: what is ready, in the order in which the waiter got it."""
LOOK_MS = 1
"""The pause, in ms, between two looks at the lanes while a stop waits for its answer."""
FRAMES = 4
"""The most frames of a message: a route of two, a head and a body."""
LINGER_MS = 200


class StopListener:
    """Takes stops at `settings.stop_address`, under the keys and the policy of the engine."""

    def __init__(
        self,
        settings: Settings,
        security: Credentials | None,
        machine: Machine,
        control: ControlChannel,
        log: LogBuffer,
    ) -> None:
        self._clock = MachineClock()
        self._machine = machine
        self._control = control
        self._log = log
        seed_ids(int.from_bytes(os.urandom(4)))
        self._context = zmq.Context()
        self._audit = Audit(file_of(settings), log.warn)
        self._audit.open()
        self._authenticator = (
            KeyAuthenticator(self._context, security, log.warn, self._audit.note) if security else None
        )
        self._clients = ClientTable(None if settings.policy is None else Policy(settings.policy))
        self._clients.learn(machine.stop_lanes)
        self._stops = EmergencyStops(machine, int, partial(self._audit.note, by="STOP_PORT"))
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.sndhwm, self._socket.rcvhwm = UNREAD_MESSAGES, TURN_MESSAGES
        self._socket.router_mandatory = 1
        self._socket.linger = LINGER_MS
        self._socket.maxmsgsize = MAX_HEAD
        self._socket.handshake_ivl = math.ceil(settings.handshake_time * 1000)
        self._socket.ipv6 = needs_ipv6(settings.stop_address)
        if security:
            security.serve(self._socket, credentials.FRONTEND)
        self._port = Port(self._socket, is_gated=self._authenticator is not None)
        self._connections = ConnectionMonitor(
            *(self._context, self._socket, self._port, _part),
            *(most_connections(settings), self._audit.note),
        )
        self._socket.bind(settings.stop_address)
        self._replies = ReplySender(self._port, self._connections)

    def serve(self) -> None:
        """Take stops until the supervisor says stop, or is gone."""
        handshakes = [self._authenticator.port] if self._authenticator else []
        waiter = Waiter(self._control.fileno(), self._port, self._connections.news, *handshakes)
        while True:
            ready = waiter.wait(self._wait_ms())
            if ready & CONTROL and self._is_over():
                break
            if ready & QUESTION and self._authenticator:
                self._authenticator.handle()
            if ready & CLIENTS:
                self._take()
            else:
                self._connections.settle()
            if ready & NEWS:
                self._connections.read()
            for answer in self._stops.answers(time.monotonic_ns()):
                self._answer(*answer)
            self._log.flush()
        self._connections.close()
        self._socket.close()
        if self._authenticator:
            self._authenticator.stop()
        self._context.term()

    def obey(self, policy: Mapping[str, Entry] | None) -> None:
        """Replace the policy; None for no policy."""
        self._clients.obey(None if policy is None else Policy(policy))

    def _is_over(self) -> bool:
        """Carry out an order of the supervisor; return whether it is to stop, or the supervisor is gone."""
        order = self._control.next_order()
        if isinstance(order, PolicyChanged):
            self.obey(order.policy)
        return isinstance(order, StopProcess)

    def _wait_ms(self) -> int:
        if self._stops.waiting:
            return LOOK_MS
        return PAUSE_MS if self._log.pending else -1

    def _take(self) -> None:
        """Take messages of clients, at most TURN_MESSAGES."""
        for _ in range(TURN_MESSAGES):
            message = self._port.receive_request(MAGIC, FRAMES)
            if message is None:
                return
            frames = message[0]
            envelope = 2 if len(frames) > 1 and not frames[1] else 1
            route, frames = tuple(frames[:envelope]), frames[envelope:]
            is_itself = self._connections.greet(route[0], self._port.user)
            try:
                if not is_itself:
                    raise NotAllowed("another connection has this routing id")
                if not frames:
                    raise ProtocolError("a message begins with a head")
                self._stop(route, frames)
            except TaskEngineError as error:
                self._answer(route, serial_of(frames[0]) if frames else NO_SERIAL, error)

    def _answer(self, route: Route, serial: int, error: TaskEngineError | None) -> None:
        """Send the answer to a stop: nil, or the error."""
        stamp = Stamp(self._clock.told(), self._clock.boot, self._machine.stop_number())
        message = binary.refusal(serial, error, stamp) if error else binary.value_reply(serial, None, stamp)
        self._replies.send(route, message)

    def _stop(self, route: Route, frames: list[bytes]) -> None:
        request = decode_request(frames[0])
        if request.kind != RequestKind.STOP:
            raise ProtocolError("this port takes STOP and nothing else; the rest is for the engine's own address")
        client, asked = self._client(route), decode_stop(frames)
        try:
            for answer in self._stops.stop(route, request.serial, asked, client, time.monotonic_ns()):
                self._answer(*answer)
        except NotAllowed as error:
            self._audit.note("refused", client=client.name, reason=str(error))
            raise

    def _client(self, route: Route) -> KnownClient:
        """Return the client that sent the last message. Raises NotAllowed where its key was revoked."""
        if self._authenticator is None:
            return self._clients.of(ANONYMOUS)
        if not is_own_id(route[0]):
            raise NotAllowed("a connection that is encrypted may not set its routing id (ZMQ_ROUTING_ID)")
        self._authenticator.refresh()
        name = self._authenticator.name_of(self._port.user)
        if name is None:
            self._audit.note("refused", fingerprint=fingerprint(self._port.user), reason="its key was revoked")
            raise NotAllowed("the engine does not let this key in any more")
        return self._clients.of(shortened(name, MAX_NAME_LENGTH))


def _part(client: bytes) -> None:
    """Do nothing when a client has left: none of its requests are in flight here."""


def run(
    settings: Settings, security: Credentials | None, machine: Machine, control: ControlChannel, log: LogBuffer
) -> None:
    """Run the stop listener. Reports Online to the supervisor, or StartFailed with the reason."""
    limit_files(settings)
    limit_memory(router_memory(settings))
    try:
        listener = StopListener(settings, security, machine, control, log)
    except zmq.ZMQError as error:
        control.send(StartFailed(f"the stop port cannot be served: {error}"))
        return
    log.say(f"Starting [STOP-{os.getpid()}] on socket: {settings.stop_address.removeprefix('tcp://')}")
    control.send(Online())
    listener.serve()
