"""The router: the sockets on both sides of the broker, and the loop between them."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import zmq

from taskengine import _fastpath
from taskengine._socket import Port, Waiter, seed_ids
from taskengine.broker.broker import Broker
from taskengine.broker.quota import QuotaLimits
from taskengine.broker.topics import data_lane
from taskengine.config.settings import Settings
from taskengine.errors import Overloaded, ProtocolError, TaskFailed
from taskengine.protocol.layouts import MAGIC, MAX_ANSWER_KEPT, MAX_OFFERED, NO_ANSWER
from taskengine.protocol.limits import MAX_MESSAGE
from taskengine.protocol.messages import TaskInfo, read_overruns
from taskengine.router.connection_monitor import ConnectionMonitor
from taskengine.router.frontend import Frontend
from taskengine.router.health import Diagnosis, WorkerHealth
from taskengine.router.scheduler import OwnClient, Scheduler
from taskengine.router.tuning import UNREAD_MESSAGES, UNREAD_REQUESTS
from taskengine.router.worker_table import WorkerTable
from taskengine.runtime.control import (
    Alive,
    KillWorker,
    PolicyChanged,
    ReloadBegun,
    ReloadEnded,
    RestartCounts,
    RetireWorker,
    StopProcess,
    TasksChanged,
    WorkerDied,
    WorkerIdle,
    WorkersStarted,
)
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.hosts import needs_ipv6
from taskengine.runtime.intervals import IMPORT_TIMEOUT_S, KEYS_LOOK_MS, TICK_MS, TURN_MESSAGES, TURN_S
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.runtime.memory import MemoryUpkeep
from taskengine.runtime.procfs import is_stopped, peer_process
from taskengine.runtime.rlimits import most_connections
from taskengine.runtime.topology import ANSWER, HEARTBEAT, HELLO, PROGRESS, STREAM, Topology
from taskengine.runtime.wall_clock import WallClock
from taskengine.security import credentials
from taskengine.security.audit import Audit, file_of
from taskengine.security.authenticator import KeyAuthenticator

M = TypeVar("M")
Request = tuple[list[bytes], bytes, bytes]
"""A client's message, as `Port.receive_request` gives it."""
LINGER_MS = 1000
KEEPALIVE_S, KEEPALIVES = 10, 3
"""A client's machine is asked whether it is there after so many s of silence, so many times, as far apart."""
STOP_MS = 1
"""Time, in ms, between two looks whether the machine is safe, while a stop waits for that."""
UNEVEN_MS = 1
"""Time, in ms, between two looks whether what busy workers have not begun is worth a message to idle ones."""
PART_MS = 1
"""Time, in ms, between two looks whether results that came have waited for others of their package."""
LOOK_MS = 2
"""Time, in ms, between two looks whether a client has read."""
ENVELOPE_FRAMES = 3
"""Before the tasks of a wire 0.1 message: where it comes from, an empty one, META."""
CONTROL, FRONTEND, BACKEND, NEWS, QUESTION = 1, 2, 4, 8, 16
"""The bits of `Waiter.wait`: what is ready, in the order in which the waiter got it."""


class Router:
    """Frontend and backend at these addresses, and the broker between them; `lanes` have so many task workers.

    `control` leads to the supervisor: it says who died and when to stop.
    """

    def __init__(
        self,
        settings: Settings,
        frontends: list[str],
        backends: list[str],
        topology: Topology,
        lanes: dict[str, int],
        tasks: list[TaskInfo],
        control: ControlChannel,
        log: LogBuffer,
    ) -> None:
        lanes = lanes | {data_lane(number): 1 for number in range(settings.data_workers)}
        self._settings = settings
        self._handshake_ms = math.ceil(settings.handshake_time * 1000)
        # milliseconds since the machine's start: no router before this one had them
        epoch = int(time.monotonic() * 1000) & 0x7FFFFFFF
        limits = QuotaLimits(
            *(settings.client_tasks, settings.client_bytes, settings.queue_tasks, settings.queue_bytes),
            *(settings.client_packages, settings.queue_packages),
        )
        pinned = topology.machine.lanes if topology.machine else ()
        size = settings.chunking_size if settings.chunking else None
        sizes = {lane: settings.lane(lane).concurrency for lane in lanes}
        self._concurrency = {lane: most for lane, most in sizes.items() if most > 1}
        self._broker = Broker(size, lanes, (), epoch, limits, pinned, self._concurrency)
        self._retiring: set[str] = set()
        self._workers = WorkerTable(topology.pages)
        self._interval = settings.heartbeat_interval
        self._interval_ms = math.ceil(self._interval * 1000)
        self._next_look = 0.0
        self._now = time.monotonic()
        """The time when something was received last."""
        self._memory = MemoryUpkeep(self._now)
        self._unpaid: float | None = None
        """The time of the last message of this turn, in s: its sender is charged once the tasks are on their way."""
        limits_s = settings.heartbeat_limit, IMPORT_TIMEOUT_S
        self._health = WorkerHealth(self._workers, self._interval, *limits_s, self._now)
        self._control = control
        self._log = log
        # libzmq ends a process in which a peer has announced the id that is next
        seed_ids(int.from_bytes(os.urandom(4)))
        self._context = zmq.Context()
        self._topology = topology
        self._audit = audit = Audit(file_of(settings), log.warn)
        audit.open()
        keys = topology.security
        self._authenticator = KeyAuthenticator(self._context, keys, log.warn, audit.note) if keys else None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._connections: ConnectionMonitor | None = None
        # requests that the router does not take wait at the client, not in this process's memory
        self._client_port = self._bind(credentials.FRONTEND, frontends, UNREAD_MESSAGES, UNREAD_REQUESTS)
        reached = (self._client_port, self._authenticator, audit, log, control.send, topology.machine)
        self._frontend = Frontend(settings, self._broker, *reached, connections=self._connections)
        # at its high-water mark a ROUTER drops, or refuses; what workers get is bounded by their credit
        self._worker_port = self._bind(credentials.BACKEND, backends, 0, 0)
        self._stop_at = float("inf")
        wall = WallClock(is_trusted=settings.trust_clock)
        client = OwnClient(self._frontend, settings.data_workers)
        self._scheduler = Scheduler(client, wall, log.say, self._workers.awaits_elders)
        self._frontend.questions.schedules = self._scheduler.states
        self._learn(tasks)

    def _learn(self, tasks: list[TaskInfo]) -> None:
        """Replace the list of tasks."""
        self._broker.availability.learn(tasks)
        self._frontend.learn(tasks)
        self._health.learn((task.name, task.timeout) for task in tasks)
        self._broker.learn({task.name for task in tasks if task.idempotent})
        self._broker.retries.learn({task.name: task.retry for task in tasks if task.retry is not None})
        self._scheduler.learn(tasks)

    def _bind(self, domain: str, addresses: list[str], unsent: int, untaken: int) -> Port:
        socket = self._context.socket(zmq.ROUTER)
        self._sockets.append(socket)
        socket.sndhwm = unsent
        socket.rcvhwm = untaken
        socket.router_mandatory = 1
        socket.linger = LINGER_MS
        socket.maxmsgsize = self._settings.message_bytes if domain == credentials.FRONTEND else MAX_MESSAGE
        socket.handshake_ivl = self._handshake_ms
        if self._topology.security:
            self._topology.security.serve(socket, domain)
        port = Port(socket, is_gated=domain == credentials.FRONTEND and self._authenticator is not None)
        if domain == credentials.FRONTEND:
            socket.tcp_keepalive = 1
            socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = KEEPALIVE_S
            socket.tcp_keepalive_cnt = KEEPALIVES
            self._connections = ConnectionMonitor(
                *(self._context, socket, port, self._broker.withdrawals.client_left),
                *(most_connections(self._settings), self._audit.note),
            )
        for address in addresses:
            socket.ipv6 = needs_ipv6(address)
            socket.bind(address)
        return port

    def serve(self) -> None:
        """Route until the supervisor says stop, or is gone."""
        questions = [self._authenticator.port] if self._authenticator else []
        most = self._settings.package_tasks + ENVELOPE_FRAMES + 1
        requests = partial(self._client_port.receive_request, MAGIC, most)
        news = [self._connections.news] if self._connections else []
        waiter = Waiter(self._control.fileno(), self._client_port, self._worker_port, *news, *questions)
        while not self._stopped():
            ready = waiter.wait(PAUSE_MS if self._log.pending else self._wait_ms())
            self._now = time.monotonic()
            self._broker.tick(self._now)
            if self._connections and self._connections.is_unsettled and not ready & FRONTEND:
                self._connections.settle()
            if not ready:
                self._log.flush()
            if ready & CONTROL:
                self._handle_control()
            if ready & QUESTION and self._authenticator:
                self._authenticator.handle()
            if ready & BACKEND:
                for frames in _received(self._worker_port.receive):
                    self._from_worker(frames)
            if ready & FRONTEND:
                self._take(requests)
            if ready & NEWS and self._connections:
                self._connections.read()
            if self._frontend.stops.waiting:
                self._frontend.answer_stops()
            if self._health.timeouts and not self._broker.idle():
                self._kill_overdue()
            if self._next_look <= self._now:
                self._check_health(self._now)
            self._frontend.look_at_keys(self._now)
            if self._scheduler.due <= self._now:
                self._scheduler.run(self._now)
            if self._frontend.streams.fresh:
                self._frontend.streams.send()
            settled = self._broker.settle(self._now)
            if settled:
                self._frontend.deliver(settled)
            self._dispatch()
            if self._unpaid is not None:
                self._frontend.charge(self._unpaid, self._now)
                self._unpaid = None
            if self._broker.workers.has_idle:
                self._even_out()
            if self._broker.looks.are_wanted:
                self._look_at_pages()
            if self._broker.progressed or self._frontend.partials.are_new or self._frontend.partials.are_late:
                self._frontend.partials.send(self._broker.take_progressed(), self._now)
            if self._frontend.progress.late:
                self._frontend.progress.settle(self._now)
            if self._broker.availability.has_changed:
                self._frontend.reroute()
            if self._retiring:
                self._report_idle()
        stopped = Overloaded("the engine stopped before the task ended", retry_after=None)
        self._frontend.deliver(self._broker.abandon(stopped))
        self._log.flush()
        if self._connections:
            self._connections.close()
        for socket in self._sockets:
            socket.close()
        if self._authenticator:
            self._authenticator.stop()
        self._context.term()

    def _take(self, requests: Callable[[], Request | None]) -> None:
        """Take what clients have sent, a turn's worth, and charge each for its own: the last one after the turn."""
        began = time.thread_time()  # what others do on the machine is nobody's work
        for request in _received(requests):
            if self._unpaid is not None:
                self._frontend.charge(self._unpaid, self._now)
            self._frontend.take(*request, self._now)
            ended = time.thread_time()
            self._unpaid = ended - began
            began = ended

    def _wait_ms(self) -> int:
        """Return in how many ms something is to happen by itself, at most."""
        if self._frontend.stops.waiting:
            return STOP_MS
        if self._broker.workers.has_idle:
            return UNEVEN_MS
        if self._frontend.partials.are_new:
            return PART_MS
        if self._frontend.partials.are_late or self._frontend.progress.late:
            return LOOK_MS
        if self._broker.looks.is_watching:
            return max(1, math.ceil((self._broker.looks.next_at - self._now) * 1000))
        limited = self._health.timeouts and not self._broker.idle()
        timed = self._broker.withdrawals.is_timed or self._broker.stopping or limited
        longest = min(self._interval_ms, KEYS_LOOK_MS) if self._authenticator else self._interval_ms
        due = self._scheduler.due if self._scheduler.due < self._broker.retries.due else self._broker.retries.due
        if due < self._now + longest / 1000:
            longest = max(0, math.ceil((due - self._now) * 1000))
        return min(TICK_MS, longest) if timed else longest

    def _stopped(self) -> bool:
        return self._broker.stopping and (self._broker.idle() or time.monotonic() >= self._stop_at)

    def _handle_control(self) -> None:
        match order := self._control.next_order():
            case WorkerDied():
                if self._workers.is_concurrent(order.worker):  # its progress page keeps no large results
                    for frames in _received(self._worker_port.receive):
                        self._from_worker(frames)
                self._on_worker_exit(order.worker)
                if self._broker.stopping:
                    self._frontend.deliver(self._broker.refuse_unserved())
            case WorkersStarted():
                for worker in order.workers:
                    self._expect(worker.name, worker.place, worker.pid, is_online=worker.is_online)
            case RetireWorker():
                self._retiring.add(order.worker)
                self._broker.workers.retire(order.worker)
            case TasksChanged():
                self._learn(order.tasks)
            case PolicyChanged():
                self._frontend.obey(order.policy)
            case ReloadBegun():
                self._frontend.questions.begin_reload()
            case ReloadEnded():
                self._frontend.end_reload(order.problem)
            case RestartCounts():
                self._frontend.questions.restarts = order.counts
            case StopProcess():
                self._broker.stopping = True
                self._scheduler.stop()
                self._stop_at = time.monotonic() + order.drain
                self._next_look = 0.0  # the supervisor waits for a sign of life
                self._frontend.deliver(self._broker.refuse_unserved())

    def _from_worker(self, frames: list[bytes]) -> None:
        name = self._workers.name_of(frames[0])
        try:
            if len(frames) == 4 and frames[1] == HELLO:
                self._enlist(frames[0], frames[2], frames[3])
                return
            if name is None:
                if frames[1] != HEARTBEAT:
                    raise ProtocolError("it has not said who it is, or is dead")
                return
            self._health.heard(name, self._now)
            if frames[1] == HEARTBEAT:
                if len(frames) > 2:
                    self._frontend.questions.overruns[name] = read_overruns(frames[2])
                with contextlib.suppress(zmq.ZMQError):  # it is gone
                    self._worker_port.send([frames[0], HEARTBEAT])
                return
            if len(frames) == 4 and frames[1] == ANSWER:
                self._finish(name, frames[3], int.from_bytes(frames[2], "little"))
            elif len(frames) == 4 and frames[1] == STREAM:
                self._frontend.streams.take(name, *self._topology.read_stream(frames[2]), frames[3])
            elif len(frames) == 2:
                self._finish(name, frames[1])
            elif len(frames) == 4 and frames[1] == PROGRESS:
                self._frontend.progress.take(name, *self._topology.read_stream(frames[2]), frames[3])
            else:
                raise ProtocolError(f"an answer is 1 frame, not {len(frames) - 1}")
        except ProtocolError as malformed:
            self._broker.counters.late += 1
            self._log.warn(f"[ROUTER-{os.getpid()}(BACKEND)] Dropped a message of {name or 'a stranger'}: {malformed}")
            if name is not None:
                self._expel(name)

    def _finish(self, name: str, answer: bytes, number: int | None = None) -> None:
        """Take a worker's answer to its oldest batch, or, in a concurrent lane, by number. Raises ProtocolError."""
        if answer == NO_ANSWER:
            error = TaskFailed("the results of the tasks that ran together do not fit into one message")
            self._frontend.deliver(self._broker.give_up(name, error, number))
            return
        if len(answer) > MAX_ANSWER_KEPT:
            for held in self._broker.workers.held(name)[:1]:
                self._workers.release(name, held)
        answers = _fastpath.read_answer(answer)
        if self._frontend.lines.enabled:
            self._frontend.lines.answered(self._broker.packages, name, answers)
        self._frontend.deliver(self._broker.finish(name, answers, number))

    def _enlist(self, identity: bytes, proof: bytes, said: bytes) -> None:
        """Take a worker's hello. Raises ProtocolError."""
        hello = self._topology.read_hello(proof, said, peer_process(self._worker_port.descriptor))
        if self._workers.is_here(hello.name):
            self._on_worker_exit(hello.name, is_dead=False)  # it has dropped what it held and not begun
            self._expect(hello.name, hello.place, hello.pid, is_online=True)
        # that it was started, or has died since, may just be told
        while not self._workers.expects(hello.name, hello.place) and self._control.poll():
            self._handle_control()
        if not self._workers.expects(hello.name, hello.place):
            raise ProtocolError(f"{hello.name} is dead, or not at place {hello.place}")
        self._broker.join(hello.name, hello.lane, hello.missing, cancels=hello.cancels)
        is_concurrent = hello.lane in self._concurrency
        self._workers.enlist(hello.name, identity, hello.place, is_concurrent=is_concurrent)
        self._health.joined(hello.name, self._now)
        if hello.name in self._retiring:
            self._broker.workers.retire(hello.name)

    def _expect(self, name: str, place: int, pid: int, *, is_online: bool) -> None:
        """Note that a worker lives: it may hang before it says hello, or in a batch that another router gave it."""
        if not self._workers.is_here(name):
            self._workers.expect(name, place, pid, is_fresh=not is_online)
            self._health.expect(name, time.monotonic(), joins=not is_online)

    def _expel(self, name: str) -> None:
        """Have a worker killed. When it is dead, its tasks are given to other workers, or answered."""
        self._broker.workers.exclude(name)
        self._health.condemned(name)
        self._control.send(KillWorker(name))

    def _on_worker_exit(self, name: str, *, is_dead: bool = True) -> None:
        """Handle the end of a worker, or of its connection: answer, keep or give to others what it held."""
        self._frontend.questions.overruns.pop(name, None)
        member = self._workers.dismiss(name)
        is_overdue = self._health.buried(name, member, time.monotonic_ns())
        error = self._health.timed_out if is_overdue else None
        self._retiring.discard(name)
        if member is not None:
            accounts = [member.account(number) for number in self._broker.workers.held(name)]
            overdue = member.overdue_batches(time.monotonic_ns())
            self._frontend.deliver(self._broker.leave(name, accounts, error, is_dead=is_dead, overdue=overdue))

    def _kill_overdue(self) -> None:
        """Have workers killed whose task is past its timeout."""
        for name in self._health.newly_overdue(time.monotonic_ns()):
            self._expel(name)

    def _report_idle(self) -> None:
        """Tell the supervisor which retiring workers have nothing to do any more."""
        for name in [name for name in self._retiring if self._broker.workers.is_free(name)]:
            self._retiring.discard(name)
            self._control.send(WorkerIdle(name))

    def _check_health(self, now: float) -> None:
        """Tell the supervisor that we live, and have workers killed that have stood still for too long."""
        self._next_look = now + self._interval
        if self._connections:  # also where there is always something to read
            self._connections.settle()
        self._control.offer(Alive(self._frontend.has_answered))
        self._kill_overdue()
        for worker, reason in self._silent(now) + self._health.late_to_join(now):
            self._log.warn(f"[ROUTER-{os.getpid()}(BACKEND)] {reason}")
            self._expel(worker)
        self._scheduler.run(now)  # somebody may have set the clock
        self._memory.tidy(self._frontend.held, now, is_idle=self._broker.idle())

    def _silent(self, now: float) -> list[Diagnosis]:
        """Return the workers that have stood still for too long, although what waited of them was read."""
        if self._health.silent(now, is_stopped):  # what they have sent may wait behind what others have
            for frames in itertools.islice(iter(self._worker_port.receive, None), TURN_MESSAGES):
                self._from_worker(frames)
        return self._health.silent(now, is_stopped)

    def _even_out(self) -> None:
        """Give what busy workers have not begun to idle ones."""
        balancer = self._broker.balancer
        uneven = balancer.uneven()
        takes = balancer.plan(uneven, self._workers.unclaimed, self._now) if uneven else []
        for name, number, tasks in takes:
            left = self._workers.take_back(name, number, tasks)
            self._frontend.deliver(self._broker.take_back(name, number, left))
        if takes:
            self._dispatch()

    def _look_at_pages(self) -> None:
        """Take what busy workers have finished, where clients want each result as it comes."""
        for look in self._broker.looks.due(self._now):
            try:
                found = self._workers.peek(look)
            except ProtocolError:  # a task has overwritten the page: its worker's answer, or death, tells the rest
                self._broker.looks.give_up(look)
            else:
                if found is not None:
                    self._frontend.deliver(self._broker.looks.take(look, *found))

    def _dispatch(self) -> None:
        for worker, number, slices, slice_ns, tasks in self._broker.dispatch():
            if slice_ns and tasks <= MAX_OFFERED:
                self._workers.offer(worker, number, tasks)
            message = _fastpath.pack_batch(
                number, slice_ns, [package.section(run, first, stop) for package, run, first, stop, *_ in slices]
            )
            try:
                self._worker_port.send([self._workers.identity_of(worker), message])
            except zmq.ZMQError:  # its connection is gone before its process
                self._expel(worker)
        for worker, number in self._broker.recalls():
            self._workers.recall(worker, number)
        if self._broker.workers.unwanted:  # after the recalls, by which is handed back what has not begun
            self._cancel_running()
        if self._frontend.streams.has_grants:
            self._grant()

    def _grant(self) -> None:
        """Tell workers what their streams may send."""
        for worker, job, grant in self._frontend.streams.take_grants():
            with contextlib.suppress(zmq.ZMQError):  # it is gone
                frames = self._topology.credit_frames(job, grant)
                self._worker_port.send([self._workers.identity_of(worker), *frames])

    def _cancel_running(self) -> None:
        """Have workers that can do that cancel running tasks whose client has cancelled them."""
        for worker, unwanted in self._broker.workers.cancellations():
            with contextlib.suppress(zmq.ZMQError):  # it is gone
                frames = self._topology.cancel_frames(unwanted)
                self._worker_port.send([self._workers.identity_of(worker), *frames])


def _received(receive: Callable[[], M | None]) -> Iterator[M]:
    """Yield what is queued, but no more than a turn's worth, so that neither side starves the other."""
    last = time.monotonic() + TURN_S
    for _ in range(TURN_MESSAGES):
        message = receive()
        if message is None:
            return
        yield message
        if time.monotonic() > last:
            return
