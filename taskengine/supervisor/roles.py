"""What an engine consists of: what the process in each role is, and what they share."""

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
from taskengine.router import router, stop_port
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
LISTENER = "stop listener"
GUARDIAN_PATIENCE_S = 0.005
"""How long the guardian waits to write a line into the audit log, while nobody else watches the pins."""


class Roles:
    """The roles of an engine with these settings and this code, whose processes become `identity`, or stay who we are.

    The router is first, since the others need it. `machine` is shared from here on, with those that are forked.
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
        """What workers load."""
        self.lane_of: dict[str, str] = {}
        """The lanes of task workers, by their roles."""
        frontends = [settings.frontend, *filter(None, [rundir.address(FRONTEND)])]
        backends = [rundir.address(BACKEND) or settings.backend]
        with borrowed(identity):
            security = Credentials.of(settings.keys_folder) if settings.is_curved else None
        feeds = [new_feed() for _ in range(settings.data_workers)]
        backplane = Topology(
            backends[0], secrets.token_bytes(32), security, feeds=feeds, machine=machine, plan=self.plan
        )
        if machine is not None:
            machine.share()
        routes = settings, frontends, backends, backplane
        keeps = machine.descriptors if machine is not None else []
        self._plan_router = partial(self._child, ROUTER, router.run, *routes, known=ROUTER_REPORTS, keeps=keeps)
        self.learn(code)
        if machine is not None:
            self._plan_guards(machine, rundir, security, feeds)
        for lane, workers in self.lanes.items():
            for number in range(1, workers + 1):
                self._plan_task_worker(backplane, lane, number)
        if settings.metrics_port:
            self._makers[METRICS] = partial(self._child, METRICS, _serve_metrics, settings, frontends[-1], security)
        for number in range(settings.data_workers):
            role, keeps = f"data worker {number + 1}", [feeds[number].ear.fileno()]
            self._plan_worker(role, publisher.run, backplane, number, keeps=keeps)

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def make(self, role: str) -> Child:
        """A process for the role, which is to be started."""
        return self._makers[role]()

    def learn(self, code: TaskCode) -> None:
        """This is the code that processes begin with from here on."""
        self.plan.code = code
        self.plan.excluded = {}
        self._makers[ROUTER] = partial(self._plan_router, self.lanes, code.tasks)

    def exclude(self, place: int, module: str, why: str) -> None:
        """Have the worker at that place not load a module any more, until there is other code."""
        self.plan.excluded.setdefault(place, {})[module] = why

    def renewed(self) -> list[str]:
        """The roles that a reload renews: those whose processes have loaded the task modules."""
        return [role for role in self._makers if role not in (ROUTER, METRICS, GUARDIAN, LISTENER)]

    def may_strangers_stop(self) -> bool:
        """Return whether other users may stop the machine by the guardian's socket, as clients without a key."""
        return self.machine is not None and _may_strangers_stop(self._settings, self.machine)

    def _plan_guards(
        self, machine: Machine, rundir: RunDir, security: Credentials | None, feeds: list[PublicationPipe]
    ) -> None:
        """Those who see to it that the machine can be stopped, whatever the router does."""
        settings = self._settings
        with borrowed(self._identity):  # it lies in a folder of theirs
            listener = rundir.listen(STOP)
        keeps = [*machine.descriptors, *_mouths(feeds), *([listener.fileno()] if listener else [])]
        extra = {"survives": True, "known": GUARDIAN_REPORTS, "keeps": keeps}
        self._makers[GUARDIAN] = partial(self._child, GUARDIAN, _guard, settings, machine, feeds, listener, **extra)
        if settings.stop_address:
            whom = settings, security, machine
            listen = partial(self._child, LISTENER, stop_port.run, *whom, keeps=machine.descriptors)
            self._makers[LISTENER] = listen

    def _plan_task_worker(self, backplane: Topology, lane: str, number: int) -> None:
        has_pins = self.machine is not None and lane in self.machine.lanes
        keeps = _mouths(backplane.feeds)
        if self.machine is not None and has_pins:
            keeps += self.machine.descriptors
        role = f"{'pin' if has_pins else 'task'} worker {lane + ' ' if lane else ''}{number}"
        self._plan_worker(role, worker.run, backplane, lane, rests=has_pins, keeps=keeps)
        self.lane_of[role] = lane
        if has_pins:
            self.owners[role] = lane

    def _plan_worker(
        self, role: str, target: Callable[..., None], backplane: Topology, what: str | int, **extra: Any
    ) -> None:
        """Give a worker, of the lane or the number `what`, a place and its progress page."""
        place, page = len(backplane.pages), new_page()
        backplane.pages.append(page)
        args = role, target, self._settings, backplane, place, what
        self._makers[role] = partial(
            self._child, *args, page=page, place=place, known=LOADER_REPORTS, logs_output=True, **extra
        )

    def _child(self, role: str, target: Callable[..., None], *args: object, **extra: Any) -> Child:
        """A process; `extra` is what only some have, see `Child`."""
        stdout = self._settings.enable_stdout
        return Child(role, target, args, enable_stdout=stdout, style=self._style, identity=self._identity, **extra)


def _mouths(feeds: list[PublicationPipe]) -> list[int]:
    """The descriptors of whoever publishes by them."""
    return [feed.mouth.fileno() for feed in feeds]


def _serve_metrics(*args: Any) -> None:
    # imported in its own process alone: it hangs itself into the garbage collector of whoever imports it
    from taskengine.supervisor import metrics

    metrics.run(*args)


def _guard(
    settings: Settings,
    machine: Machine,
    feeds: list[PublicationPipe],
    listener: socket.socket | None,
    control: ControlChannel,
    journal: LogBuffer,
) -> None:
    attach(feeds)
    note = Audit(file_of(settings), journal.warn, GUARDIAN_PATIENCE_S).note
    strangers_may = _may_strangers_stop(settings, machine)
    publish = publish_owned if feeds else _tell_nobody
    log = journal.say, journal.warn, note
    link = GuardianLink(control)
    machine.guard(settings.heartbeat_interval, link, *log, publish, listener, strangers_may=strangers_may)


def _may_strangers_stop(settings: Settings, machine: Machine) -> bool:
    policy = None if settings.policy is None else Policy(settings.policy)
    return may_call_any(policy, ANONYMOUS, machine.stop_lanes)


def _tell_nobody(topic: str, value: Any) -> None:
    """Where there is no data worker."""
