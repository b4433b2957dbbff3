"""Reloads the task modules: another process reads them, then the workers are renewed one by one.

A worker has ended before the next one imports, so that a device that a module claims is free. All workers go back to
the previous code if a module does not load in a worker that had it before, or loads in none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from taskengine.config.changes import renew_policy
from taskengine.config.machine import GUARDIAN
from taskengine.config.settings import Settings
from taskengine.errors import SettingsError, TaskModuleError
from taskengine.registry.survey import TaskCode
from taskengine.runtime.control import PolicyChanged, StrangersMayStop, TasksChanged
from taskengine.runtime.intervals import IMPORT_TIMEOUT_S
from taskengine.security.identity import Identity
from taskengine.supervisor.catalogue import Reading
from taskengine.supervisor.child import Child
from taskengine.supervisor.children import Children
from taskengine.supervisor.roles import LISTENER, ROUTER, Roles
from taskengine.supervisor.rollout import Rollout


class ReloadHost(Protocol):
    """The methods of the supervisor that a reload calls."""

    def begin_reload(self) -> None:
        """Announce that a reload begins."""

    def end_reload(self, problem: str) -> None:
        """Announce that the reload has ended; `problem` says why it changed nothing, "" if it did."""

    def retire(self, role: str) -> None:
        """Replace the worker in that role as soon as it is idle."""


class Reload:
    """Reloads an engine, one reload at a time.

    `check` returns why the engine cannot be reloaded, "" if it can. `read` reads the settings anew.
    `watch(connection, function)` has the function called whenever the connection is readable; None ends that.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity | None,
        roles: Roles,
        host: ReloadHost,
        children: Children,
        check: Callable[[], str],
        read: Callable[[], Settings],
        watch: Callable[[Any, Callable[[], object] | None], None],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._roles = roles
        self._host = host
        self._children = children
        self._check = check
        self._read = read
        self._watch = watch
        self._reading: Reading | None = None
        self._reading_end = 0.0
        self._rollout: Rollout | None = None
        self._renewed: list[str] = []
        self._before = TaskCode()
        self._not_imported_before: dict[str, frozenset[str]] = {}
        """The modules that each worker had not imported before, by role."""
        self._policy: dict[str, Any] = {}
        self._problem = ""

    @property
    def is_going_on(self) -> bool:
        """Whether a reload has begun and has not ended."""
        return self._reading is not None or self._rollout is not None

    def begin(self) -> None:
        """Begin to read the task modules in another process."""
        self._host.begin_reload()
        problem = self._check()
        if problem:
            self._host.end_reload(problem)
            return
        try:
            self._reading = reading = Reading(self._settings.tasks, self._identity, self._roles.machine)
        except OSError as error:
            self._host.end_reload(f"the modules cannot be loaded: {error.strerror}")
            return
        self._reading_end = time.monotonic() + IMPORT_TIMEOUT_S
        self._watch(reading.connection, self._take_code)

    def close(self) -> None:
        """Stop reading modules."""
        if self._reading is not None:
            self._reading.close()

    def go_on(self, now: float) -> None:
        """Renew the next worker, if it is time."""
        if self._reading is not None and now >= self._reading_end:
            self._take_code()
        if self._rollout is None:
            return
        role = self._rollout.next(now)
        if role is not None:
            self._renewed.append(role)
            self._host.retire(role)
        if self._rollout.is_over():
            self._rollout = None
            self._host.end_reload(self._problem)

    def started(self, role: str, now: float) -> None:
        """Note that a process was started: its imports may take IMPORT_TIMEOUT_S."""
        if self._rollout is not None:
            self._rollout.started(role, now + IMPORT_TIMEOUT_S)

    def online(self, child: Child) -> None:
        """Note that a process is online; go back to the previous code if it has lost a module."""
        if self._rollout is None:
            return
        missed = [] if self._problem else self._lost_modules(child)
        if missed:
            self._go_back("; ".join(f"task module {name}: {child.not_imported[name]}" for name in missed))
        else:
            self._rollout.renewed(child.role)

    def _take_code(self) -> None:
        """Begin to renew the workers with the code that was read, or end the reload if it could not be read."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        self._watch(reading.connection, None)
        policy = dict(self._settings.policy or {})
        try:
            if time.monotonic() >= self._reading_end:
                reading.close()
                raise TaskModuleError(f"the task modules take longer than {IMPORT_TIMEOUT_S:g} s to load")
            code = reading.result()
            new = {task.lane for task in code.tasks} - self._roles.lanes.keys()
            if new:
                raise TaskModuleError(f"a new lane, {', '.join(sorted(new))}, takes a restart of the engine")
            renew_policy(self._settings, self._read())
        except (TaskModuleError, SettingsError) as error:
            self._host.end_reload(str(error))
            return
        self._policy, self._problem = policy, ""
        self._before, self._renewed = self._roles.plan.code, []
        self._not_imported_before = {role: frozenset(child.not_imported) for role, child in self._children.items()}
        self._roll_out(code, self._roles.renewed())

    def _roll_out(self, code: TaskCode, roles: Iterable[str]) -> None:
        self._roles.learn(code)
        self._children.tell(ROUTER, TasksChanged(code.tasks))
        for role in (ROUTER, LISTENER):
            self._children.tell(role, PolicyChanged(self._settings.policy))
        self._children.tell(GUARDIAN, StrangersMayStop(self._roles.may_strangers_stop()))
        self._rollout = Rollout(roles, self._settings.drain_time)

    def _lost_modules(self, child: Child) -> list[str]:
        """Return the modules whose loss undoes the reload: this worker had them before, or no other has."""
        if child.role not in self._renewed:
            return []
        known = {module.name for module in self._before.modules if not module.failure}
        before = self._not_imported_before.get(child.role, ())
        return [
            name
            for name in child.not_imported
            if (name in known and name not in before) or not self._has_another(child, name)
        ]

    def _has_another(self, child: Child, name: str) -> bool:
        lanes = self._roles.lane_of
        others = [
            other
            for role, other in self._children.items()
            if other is not child and role in lanes and lanes[role] == lanes.get(child.role)
        ]
        modules = self._before.modules
        was_known = any(module.name == name for module in modules)
        return any(name not in o.not_imported and (was_known or o.role in self._renewed) for o in others if o.online)

    def _go_back(self, problem: str) -> None:
        self._problem = problem
        if self._settings.policy is not None:
            self._settings.policy.clear()
            self._settings.policy.update(self._policy)
        roles, self._renewed = self._renewed, []
        self._roll_out(self._before, roles)
