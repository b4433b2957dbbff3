"""The parent process: starts, watches, restarts and stops the others, and writes the log of all of them.

SIGINT and SIGTERM stop the engine, SIGHUP reloads the task modules, SIGUSR1 stops the machine.
"""

from __future__ import annotations

import gc
import os
import selectors
import time
from collections.abc import Callable
from typing import Any

from taskengine.config.machine import GUARDIAN
from taskengine.config.settings import Settings
from taskengine.config.weaknesses import Reminder, insecure, old_libzmq
from taskengine.errors import ProtocolError
from taskengine.registry.survey import TaskCode
from taskengine.runtime.control import (
    Alive,
    KillWorker,
    Online,
    OwnerStarted,
    ReloadBegun,
    ReloadEnded,
    ReloadRequested,
    Report,
    RestartCounts,
    RetireWorker,
    StopProcess,
    UnknownMessage,
    WorkerDied,
    WorkerIdle,
    WorkersStarted,
)
from taskengine.runtime.descendants import orphans
from taskengine.runtime.heartbeat import HeartbeatMonitor
from taskengine.runtime.rundir import RunDir
from taskengine.security.credentials import libzmq_version
from taskengine.security.identity import Identity, borrowed
from taskengine.security.redaction import without_folders
from taskengine.supervisor import systemd
from taskengine.supervisor.backoff import Backoff
from taskengine.supervisor.catalogue import load_catalogue
from taskengine.supervisor.child import Child
from taskengine.supervisor.children import Children, as_told, worker_name
from taskengine.supervisor.forked_process import ending
from taskengine.supervisor.import_crashes import ImportCrashes
from taskengine.supervisor.preflight import StartError, check_metrics, check_ports, check_record
from taskengine.supervisor.reload import Reload
from taskengine.supervisor.roles import ROUTER, Roles
from taskengine.supervisor.signals import SignalCounts
from taskengine.supervisor.terminal import Terminal, fill_standard_fds, log_style

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 2.0
LAST_LINES_S = 0.5
TERMINAL_S = 0.02
"""The pause before another try to write to a terminal that takes no more."""
SIGN_S = 0.5
"""How long a router that is told to stop may stay silent before the supervisor stops the machine itself."""
ROUTER_PATIENCE = 3
"""The router may be silent for so many times HEARTBEAT_LIMIT."""


class Supervisor:
    """One engine. Its log goes to `terminal`, `notifier` tells systemd its state.

    Its processes run as `identity`, or as our own user. `check` returns why the engine cannot be reloaded, "" if it
    can. `read` reads the settings anew for a reload.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity | None,
        terminal: Terminal,
        notifier: systemd.Notifier,
        check: Callable[[], str] = str,
        read: Callable[[], Settings] | None = None,
    ) -> None:
        self._settings = settings
        self._read_anew = read or (lambda: settings)
        self._identity = identity
        self._terminal = terminal
        self._notifier = notifier
        self._check = check
        self._children = Children()
        self._backoffs: dict[str, Backoff] = {}
        self._due: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        self._roles: Roles
        self._signals = SignalCounts()
        self._failure = ""
        self._machine = settings.machine()
        self._served = 0
        self._reload: Reload | None = None
        self._crashes = ImportCrashes()
        self._retiring: set[str] = set()
        self._is_serving = False
        self._has_shown_itself = False
        """Whether the router has shown that it is alive since it was told to stop."""
        self._next_look = 0.0
        self._selector = selectors.DefaultSelector()
        self._interval = settings.heartbeat_interval
        # no task can block the router, but its turns may be long
        limit = ROUTER_PATIENCE * settings.heartbeat_limit
        self._heartbeats = HeartbeatMonitor(self._interval, limit, time.monotonic())
        self._insecure = insecure(settings)
        self._reminder = Reminder(wanted=bool(self._insecure))

    def serve(self) -> int:
        """Serve until SIGINT or SIGTERM; return the exit code. Raises StartError, TaskModuleError."""
        settings = self._settings
        check_ports(settings)
        check_metrics(settings)
        check_record(settings)
        orphans.begin(is_init=os.getpid() == 1)
        stop = self._signals.listen()
        self._selector.register(stop, selectors.EVENT_READ, lambda: stop.recv(64))
        catalogue = None
        while catalogue is None and not self._signals.ends:
            try:
                catalogue = load_catalogue(settings.tasks, stop, self._identity, self._machine)
            except InterruptedError:  # or by a reload, which is what comes next
                stop.recv(64)
                self._signals.reloads = 0
        if catalogue is None:
            return 0
        self._announce(catalogue)
        with borrowed(self._identity):
            rundir = RunDir(settings.host, settings.router_frontend)
        try:
            self._roles = Roles(settings, self._identity, self._machine, rundir, catalogue)
            self._reload = self._plan_reload()
            self._served = len(catalogue.tasks)
            gc.freeze()
            self._start_all()
            self._is_serving = True
            if not self._signals.ends:
                self._notifier.start(time.monotonic(), self._ready())
            self._run_until(lambda: self._signals.ends > 0)
            self._stop()
        finally:
            self._end_all()
            rundir.close()
        return 0

    def _ready(self) -> str:
        return systemd.ready(os.getpid(), f"Serving {self._served} tasks on {self._settings.frontend}")

    def _announce(self, catalogue: TaskCode) -> None:
        say = self._terminal.say
        if old := old_libzmq(libzmq_version()):
            self._terminal.warn(f"[SUPERVISOR] Warning: {old}")
        self._warn_insecure(time.monotonic())
        for failure in catalogue.failures:
            self._terminal.warn(f"[SUPERVISOR] Left out: {failure}")
        say("[REGISTERED-TASKS]:")
        for task in catalogue.tasks:
            say(f"[-] {task.name}")
        say("------------------")
        say("### Type [ctrl-c] to exit and shutdown workers ###")

    def _warn_insecure(self, now: float) -> None:
        if self._reminder.is_due(now):
            self._terminal.warn(f"[SUPERVISOR] !!!!!! {self._insecure} !!!!!!")

    def _start_all(self) -> None:
        others = [role for role in self._roles if role != ROUTER]
        for roles in [ROUTER], others:
            for role in roles:
                self._start(role)
            self._await_online(roles)

    def _start(self, role: str) -> None:
        self._due.pop(role, None)
        child = self._roles.make(role)
        try:
            child.start()
        except OSError as error:  # out of descriptors, processes or memory: there may be more soon
            if not self._is_serving:
                raise StartError(f"{role} cannot be started: {error.strerror}") from None
            wait = self._backoffs.setdefault(role, Backoff()).next(0.0, online=False, useful=False)
            self._due[role] = time.monotonic() + wait
            self._terminal.warn(f"[SUPERVISOR] Cannot start {role} ({error.strerror}); trying again in {wait:g} s")
            return
        self._children[role] = child
        if self._reload is not None:
            self._reload.started(role, time.monotonic())
        if role in (ROUTER, GUARDIAN):  # from here on it sends heartbeats; the first may come after its start
            self._heartbeats.heard(role, time.monotonic() + START_TIMEOUT_S)
        if role == ROUTER:
            child.order(WorkersStarted(self._children.workers()))
        elif child.place is not None:
            self._children.tell_router(WorkersStarted(as_told(child)))
        self._tell_guardian(child)
        self._selector.register(child.log, selectors.EVENT_READ, lambda: self._read(child))
        self._selector.register(child.control.fileno(), selectors.EVENT_READ, lambda: self._read_reports(child))
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._on_exit(child))
        self._terminal.say(f"Starting process [{child.pid}]: {role}")

    def _tell_guardian(self, child: Child) -> None:
        """Tell the guardian which owners of pins to watch: all if it is new, else the new one."""
        guardian = self._children.get(GUARDIAN)
        if guardian is None:
            return
        for role, lane in self._roles.owners.items():
            if role in self._children and (child is guardian or child.role == role):
                guardian.order(OwnerStarted(lane, self._children[role].pid))

    def _await_online(self, roles: list[str]) -> None:
        def online(role: str) -> bool:
            return role in self._children and self._children[role].online

        self._run_until(lambda: self._signals.ends or self._failure or all(map(online, roles)), START_TIMEOUT_S)
        if self._failure:
            raise StartError(self._failure)
        for role in roles:
            if not (self._signals.ends or online(role)):
                self._terminal.warn(f"[SUPERVISOR] Not online after {START_TIMEOUT_S:g} s: {role}")

    def _read(self, child: Child) -> None:
        self._terminal.add(child.read_lines())
        self._unregister_closed(child)

    def _read_reports(self, child: Child) -> None:
        try:
            reports = child.read_reports()
        except ProtocolError as error:
            child.fault = str(error)
            child.process.kill()
            reports = []
        self._unregister_closed(child)
        for report in reports:
            self._handle_report(child, report)

    def _handle_report(self, child: Child, report: Report | UnknownMessage) -> None:
        match report:
            case Alive():
                self._heartbeats.heard(child.role, time.monotonic())
                self._has_shown_itself = self._has_shown_itself or child.role == ROUTER
            case KillWorker():
                for other in self._children.named(report.worker):
                    other.process.kill()
            case WorkerIdle():
                for other in self._children.named(report.worker):
                    other.order(StopProcess())
            case ReloadRequested():
                self._signals.reloads += 1
            case Online():
                self._on_online(child)
            case UnknownMessage() if not child.has_sent_unknown:  # once for each process: a task may send any number
                child.has_sent_unknown = True
                self._terminal.warn(f"[SUPERVISOR] Ignored an unknown report of {child.role}: {report.tag!r}")

    def _on_online(self, child: Child) -> None:
        """Act on the report that a process is online."""
        self._crashes.online(child.role)
        if self._reload is not None:
            self._reload.online(child)
        if child.role == ROUTER:  # a new router has to learn what the last one knew
            child.order(RestartCounts(self._restarts))
            for role in self._retiring & self._children.keys():
                child.order(RetireWorker(worker_name(self._children[role])))

    def _unregister_closed(self, child: Child) -> None:
        """Stop watching the descriptors of a process whose other end is closed: a task may close them."""
        for fd in child.closed & self._selector.get_map().keys():
            self._selector.unregister(fd)

    def _on_exit(self, child: Child) -> None:
        """Free what a dead process had, and start it again unless the engine stops."""
        self._terminal.add(child.read_lines())
        self._read_reports(child)
        self._failure = self._failure or child.failure
        self._close(child)
        self._heartbeats.leave(child.role)
        if child.role != ROUTER:
            self._children.tell_router(WorkerDied(worker_name(child)))
        if self._signals.ends:
            # spelled as by the original engine: scripts may look for it
            self._terminal.say(f"Sucessfully terminated process [{child.pid}]: {child.role}")
            return
        code = child.process.exitcode or 0
        if child.role in self._retiring:
            self._retiring.discard(child.role)
            self._terminal.say(f"[SUPERVISOR] Renewing process [{child.pid}]: {child.role}")
            self._due[child.role] = time.monotonic()
            return
        how = child.failure or child.fault or ending(code)
        is_left_out = self._exclude_module(child, how)
        self._terminal.warn(f"[SUPERVISOR] Process [{child.pid}] ended ({how}): {child.role}; starting another")
        backoff = self._backoffs.setdefault(child.role, Backoff())
        now = time.monotonic()
        wait = backoff.next(now - child.started, online=child.online, useful=child.was_useful)
        wait = 0.0 if is_left_out else wait
        self._due[child.role] = now + wait
        kind = child.role.partition(" ")[0]
        self._restarts[kind] = self._restarts.get(kind, 0) + 1
        self._children.tell_router(RestartCounts(self._restarts))
        if child.role == ROUTER:
            self._children.rejoin()

    def begin_reload(self) -> None:
        """Announce that a reload begins; see `ReloadHost`."""
        self._children.tell_router(ReloadBegun())
        self._notifier.tell(systemd.reloading(time.monotonic()))

    def end_reload(self, problem: str) -> None:
        """Announce that the reload has ended; see `ReloadHost`."""
        self._served = len(self._roles.plan.code.tasks)
        say = self._terminal.warn if problem else self._terminal.say
        say(f"[SUPERVISOR] {f'Not reloaded: {problem}' if problem else 'Reloaded the task modules'}")
        self._notifier.tell(self._ready())
        self._children.tell_router(ReloadEnded(problem if self._settings.has_tracebacks else without_folders(problem)))

    def retire(self, role: str) -> None:
        """Replace a worker as soon as it is idle; see `ReloadHost`. Without one, the next has the new code."""
        if role in self._children:
            self._retiring.add(role)
            self._children.tell_router(RetireWorker(worker_name(self._children[role])))

    def _exclude_module(self, child: Child, how: str) -> bool:
        """Have the next process leave out the module that a process ended in; return whether it does."""
        module = child.loading
        if not module or child.place is None:
            return False
        why = self._crashes.verdict(child.role, module, how, time.monotonic() - child.started)
        if why:
            self._roles.exclude(child.place, module, why)
            self._terminal.warn(f"[SUPERVISOR] Left out: task module {module}: {why}: {child.role}")
        return bool(why)

    def _plan_reload(self) -> Reload:
        def watch(connection: Any, heard: Callable[[], object] | None) -> None:
            if heard is None:
                self._selector.unregister(connection)
            else:
                self._selector.register(connection, selectors.EVENT_READ, heard)

        shared = self._settings, self._identity, self._roles, self, self._children
        return Reload(*shared, self._check, self._read_anew, watch)

    def _advance_reload(self, now: float) -> None:
        """Begin a requested reload, and continue one that has begun."""
        if self._reload is None:
            return
        if self._signals.reloads and not self._reload.is_going_on:
            self._signals.reloads = 0
            self._reload.begin()
        self._reload.go_on(now)

    def _kill_silent(self, now: float) -> None:
        """Kill a router or a guardian whose heartbeat is missing for too long."""
        for role in self._heartbeats.silent(now):
            child = self._children[role]
            self._terminal.warn(
                f"[SUPERVISOR] Process [{child.pid}] has sent no heartbeat for too long: {role}; killing it"
            )
            self._heartbeats.leave(role)
            child.process.kill()

    def _close(self, child: Child) -> None:
        for fd in {child.log, child.control.fileno(), child.pidfd} & self._selector.get_map().keys():
            self._selector.unregister(fd)
        child.close()
        del self._children[child.role]

    def _run_until(self, done: Callable[[], object], timeout: float = float("inf")) -> None:
        """Run the engine until `done()`, or for `timeout` s."""
        end = time.monotonic() + timeout
        while not done():
            now = time.monotonic()
            if now >= end:
                return
            if self._signals.stops:
                self._signals.stops = 0
                self._stop_machine("SIGUSR1")
            if self._signals.ends:
                self._due.clear()
            if self._next_look <= now:
                self._next_look = now + self._interval
                self._kill_silent(now)
            if not self._signals.ends:
                self._advance_reload(now)
                self._warn_insecure(now)
            for role in [role for role, due in self._due.items() if due <= now]:
                self._start(role)
            orphans.look(now)
            self._notifier.beat(now, alive=ROUTER in self._children or ROUTER in self._due)
            unsaid = [child for child in self._children.values() if child.send_orders()]
            soon = now + TERMINAL_S if self._terminal.pending or unsaid else end
            due = [self._next_look, self._notifier.due, self._reminder.due, orphans.due, *self._due.values()]
            self._watch(min([end, soon, *due]) - now)

    def _watch(self, timeout: float) -> None:
        for key, _ in self._selector.select(max(0.0, timeout)):
            if key.fileobj in self._selector.get_map():  # an earlier event of this turn may have removed it
                key.data()
        self._terminal.write()

    def _stop(self) -> None:
        self._terminal.say("Closing application and stopping services...")
        asked, drain = self._signals.ends, self._settings.drain_time
        self._notifier.tell(systemd.stopping(drain + 3 * STOP_TIMEOUT_S + LAST_LINES_S))
        if ROUTER in self._children:
            self._children[ROUTER].order(StopProcess(drain))
        self._has_shown_itself = False

        def is_over() -> bool:
            return ROUTER not in self._children or self._signals.ends > asked

        def answers() -> bool:
            return self._has_shown_itself or is_over()

        self._run_until(answers, SIGN_S)
        if not answers():
            self._stop_machine("the engine stops, and its router does not answer")
            self._run_until(answers, STOP_TIMEOUT_S - SIGN_S)
        if answers():
            self._run_until(is_over, drain + STOP_TIMEOUT_S)
        else:
            self._children[ROUTER].process.kill()

    def _stop_machine(self, why: str) -> None:
        """Bring every output to its safe state, until a client arms the machine."""
        if self._machine is None:
            self._terminal.warn("[SUPERVISOR] There is no machine to stop: the settings have no table [hardware]")
            return
        number = self._machine.stop(time.monotonic_ns(), by="supervisor", why=why)
        self._terminal.warn(f"[SUPERVISOR] Stopped the machine ({why}), stop {number}")

    def _end_all(self) -> None:
        """End all processes that are left, and write the last lines of the log."""
        self._signals.ends = self._signals.ends or 1
        if self._reload is not None:
            self._reload.close()
        for child in self._children.values():
            child.order(StopProcess())
        deadline = STOP_TIMEOUT_S if self._signals.ends == 1 else 0.0
        self._run_until(lambda: not self._children, deadline)
        # the guardian lives longer: it makes the pins of killed owners safe
        for survivors in True, False:
            for child in list(self._children.values()):
                if not (child.survives and survivors):
                    child.process.kill()
            self._run_until(lambda: not (self._children or orphans.is_hunting), STOP_TIMEOUT_S)
        self._run_until(lambda: not self._terminal.pending, LAST_LINES_S)


def serve(settings: Settings, identity: Identity | None, check: Callable[[], str], read: Callable[[], Settings]) -> int:
    """Serve in the foreground until SIGINT or SIGTERM; return the exit code.

    The arguments are those of `Supervisor`. Raises StartError, TaskModuleError.
    """
    fill_standard_fds()
    terminal = Terminal(style=log_style(settings)).log_by()
    notifier = systemd.Notifier.take(os.environ, os.getpid(), terminal.warn)
    return Supervisor(settings, identity, terminal, notifier, check, read).serve()
