"""The processes of an engine by their roles, and what they share."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from taskengine.config.machine import GUARDIAN, Machine
from taskengine.config.policy import ANONYMOUS, Policy, may_call_any
from taskengine.config.settings import Settings
from taskengine.registry.survey import Plan, TaskCode
from taskengine.router import process as router_process
from taskengine.router import stop_port
from taskengine.runtime.control import GUARDIAN_REPORTS, LOADER_REPORTS, ROUTER_REPORTS
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.feed import PublicationPipe, attach, new_feed, publish_owned
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import new_page
from taskengine.runtime.rundir import BACKEND, FRONTEND, STOP, RunDir
from taskengine.runtime.topology import Topology
from taskengine.security.audit import Audit, file_of
from taskengine.security.credentials import Credentials
from taskengine.security.identity import Identity, borrowed
from taskengine.supervisor.child import Child
from taskengine.supervisor.guardian_link import GuardianLink
from taskengine.supervisor.terminal import log_style
from taskengine.worker import publisher, worker

ROUTER = "router"
METRICS = "metrics"
RECORDER = "recorder"
LISTENER = "stop listener"
GUARDIAN_PATIENCE_S = 0.005
"""How long the guardian may wait to write a line of the audit log: meanwhile nothing watches the pins."""


class Roles:
    """The roles of an engine with these settings and this code. Its processes run as `identity`, or as our own user.

    The router is first, since the others need it. From here on `machine` is shared with the processes that are forked.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity | None,
        machine: Machine | None,
        rundir: RunDir,
        code: TaskCode,
    ) -> None:
        self._settings = settings
        self._style = log_style(settings)
        self._identity = identity
        self.machine = machine
        self._makers: dict[str, Callable[[], Child]] = {}
        self.owners: dict[str, str] = {}
        """The lanes that have pins, by the roles of their workers."""
        self.lanes = settings.lanes_with(task.lane for task in code.tasks)
        self.plan = Plan()
        """The code that workers load."""
        self.lane_of: dict[str, str] = {}
        """The lanes of task workers, by their roles."""
        frontends = [settings.frontend, *filter(None, [rundir.address(FRONTEND)])]
        backends = [rundir.address(BACKEND) or settings.backend]
        with borrowed(identity):
            security = Credentials.of(settings.keys_folder) if settings.is_curved else None
        feeds = [new_feed() for _ in range(settings.data_workers)]
        topology = Topology(
            backends[0], secrets.token_bytes(32), security, feeds=feeds, machine=machine, plan=self.plan
        )
        if machine is not None:
            machine.share()
        routes = settings, frontends, backends, topology
        keeps = machine.descriptors if machine is not None else []
        self._plan_router = partial(self._child, ROUTER, router_process.run, *routes, known=ROUTER_REPORTS, keeps=keeps)
        self.learn(code)
        if machine is not None:
            self._plan_guards(machine, rundir, security, feeds)
        for lane, workers in self.lanes.items():
            for number in range(1, workers + 1):
                self._plan_task_worker(topology, lane, number)
        if settings.metrics_port:
            self._makers[METRICS] = partial(self._child, METRICS, _serve_metrics, settings, frontends[-1], security)
        for number in range(settings.data_workers):
            role, keeps = f"data worker {number + 1}", [feeds[number].read_end.fileno()]
            self._plan_worker(role, publisher.run, topology, number, keeps=keeps)
        if settings.record:
            self._makers[RECORDER] = partial(self._child, RECORDER, _record, settings, security)

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def make(self, role: str) -> Child:
        """Return a new process for the role, not yet started."""
        return self._makers[role]()

    def learn(self, code: TaskCode) -> None:
        """Set the code that new processes start with."""
        self.plan.code = code
        self.plan.excluded = {}
        self._makers[ROUTER] = partial(self._plan_router, self.lanes, code.tasks)

    def exclude(self, place: int, module: str, why: str) -> None:
        """Have new workers at that place leave a module out, until `learn` sets other code."""
        self.plan.excluded.setdefault(place, {})[module] = why

    def renewed(self) -> list[str]:
        """Return the roles that a reload renews: those whose processes load task modules."""
        return [role for role in self._makers if role not in (ROUTER, METRICS, RECORDER, GUARDIAN, LISTENER)]

    def may_strangers_stop(self) -> bool:
        """Return whether other users may stop the machine by the guardian's socket, as clients without a key."""
        return self.machine is not None and _may_strangers_stop(self._settings, self.machine)

    def _plan_guards(
        self, machine: Machine, rundir: RunDir, security: Credentials | None, feeds: list[PublicationPipe]
    ) -> None:
        """Plan the guardian and the stop listener, which can stop the machine without the router."""
        settings = self._settings
        with borrowed(self._identity):  # it lies in a folder of that user
            listener = rundir.listen(STOP)
        keeps = [*machine.descriptors, *_write_ends(feeds), *([listener.fileno()] if listener else [])]
        extra = {"survives": True, "known": GUARDIAN_REPORTS, "keeps": keeps}
        self._makers[GUARDIAN] = partial(self._child, GUARDIAN, _guard, settings, machine, feeds, listener, **extra)
        if settings.stop_address:
            args = settings, security, machine
            listen = partial(self._child, LISTENER, stop_port.run, *args, keeps=machine.descriptors)
            self._makers[LISTENER] = listen

    def _plan_task_worker(self, topology: Topology, lane: str, number: int) -> None:
        has_pins = self.machine is not None and lane in self.machine.lanes
        keeps = _write_ends(topology.feeds)
        if self.machine is not None and has_pins:
            keeps += self.machine.descriptors
        role = f"{'pin' if has_pins else 'task'} worker {lane + ' ' if lane else ''}{number}"
        self._plan_worker(role, worker.run, topology, lane, rests=has_pins, keeps=keeps)
        self.lane_of[role] = lane
        if has_pins:
            self.owners[role] = lane

    def _plan_worker(
        self, role: str, target: Callable[..., None], topology: Topology, what: str | int, **extra: Any
    ) -> None:
        """Plan a worker, whose lane or number is `what`, with a place and a progress page."""
        place, page = len(topology.pages), new_page()
        topology.pages.append(page)
        args = role, target, self._settings, topology, place, what
        self._makers[role] = partial(
            self._child, *args, page=page, place=place, known=LOADER_REPORTS, logs_output=True, **extra
        )

    def _child(self, role: str, target: Callable[..., None], *args: object, **extra: Any) -> Child:
        """Return a process; `extra` holds further arguments of `Child`."""
        stdout = self._settings.enable_stdout
        return Child(role, target, args, enable_stdout=stdout, style=self._style, identity=self._identity, **extra)


def _write_ends(feeds: list[PublicationPipe]) -> list[int]:
    """Return the descriptors that a process needs to publish."""
    return [feed.write_end.fileno() for feed in feeds]


def _serve_metrics(*args: Any) -> None:
    # imported in its own process alone: prometheus-client adds a hook to the garbage collector of its importer
    from taskengine.supervisor import metrics

    metrics.run(*args)


def _record(*args: Any) -> None:
    # imported in its own process alone: nobody else needs what it imports
    from taskengine.recording import process

    process.run(*args)


def _guard(
    settings: Settings,
    machine: Machine,
    feeds: list[PublicationPipe],
    listener: socket.socket | None,
    control: ControlChannel,
    log: LogBuffer,
) -> None:
    attach(feeds)
    note = Audit(file_of(settings), log.warn, GUARDIAN_PATIENCE_S).note
    strangers_may = _may_strangers_stop(settings, machine)
    publish = publish_owned if feeds else _publish_nothing
    link = GuardianLink(control)
    loggers = log.say, log.warn, note
    machine.guard(settings.heartbeat_interval, link, *loggers, publish, listener, strangers_may=strangers_may)


def _may_strangers_stop(settings: Settings, machine: Machine) -> bool:
    policy = None if settings.policy is None else Policy(settings.policy)
    return may_call_any(policy, ANONYMOUS, machine.stop_lanes)


def _publish_nothing(topic: str, value: Any) -> None:
    """Publish nothing: there is no data worker."""
