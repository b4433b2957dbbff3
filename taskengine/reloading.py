"""A reload: the task modules are read aside, and the workers renewed with them, or given back what they had.

A worker that is renewed has ended before the next one imports, so that a device which a module claims is free. Where a
module does not load that a worker had before, or that none has, all go back to the code from before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from taskengine.catalogue import Reading
from taskengine.errors import SettingsError, TaskModuleError
from taskengine.hardware import GUARDIAN
from taskengine.identity import Identity
from taskengine.process import Child
from taskengine.renewal import renew_policy
from taskengine.roles import LISTENER, ROUTER, Roles
from taskengine.rollout import Rollout
from taskengine.settings import Settings
from taskengine.survey import Code
from taskengine.wire import IMPORT_TIMEOUT_S


class Host(Protocol):
    """What the supervisor does for a reload."""

    def tell(self, role: str, order: str, argument: object = None) -> None:
        """Tell the process in that role, where there is one."""

    def begin_reload(self) -> None:
        """Let it be known that a reload begins."""

    def end_reload(self, problem: str) -> None:
        """Let it be known that it has ended, and why all is as before, "" where it is not."""

    def retire(self, role: str) -> None:
        """Have the worker in that role end when it has nothing to do, and another one started then."""


class Reload:
    """The reloads of an engine of these settings, one at a time; `check` says why there can be none.

    `watch` has a connection watched: the function is called when it is readable, and None ends that.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity | None,
        roles: Roles,
        host: Host,
        children: Mapping[str, Child],
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
        self._before = Code()
        self._lacked: dict[str, frozenset[str]] = {}
        """What each worker lacked before."""
        self._policy: dict[str, Any] = {}
        self._problem = ""

    @property
    def is_going_on(self) -> bool:
        """It has begun and has not ended."""
        return self._reading is not None or self._rollout is not None

    def begin(self) -> None:
        """Read the task modules aside."""
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
        """Wait for no module any more."""
        if self._reading is not None:
            self._reading.close()

    def go_on(self, now: float) -> None:
        """Have the next worker renewed, if it is time."""
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
        """A process was started, which may import for long."""
        if self._rollout is not None:
            self._rollout.started(role, now + IMPORT_TIMEOUT_S)

    def online(self, child: Child) -> None:
        """A process is online, with the modules that it `lacks`."""
        if self._rollout is None:
            return
        missed = [] if self._problem else self._missed(child)
        if missed:
            self._go_back("; ".join(f"task module {name}: {child.lacks[name]}" for name in missed))
        else:
            self._rollout.renewed(child.role)

    def _take_code(self) -> None:
        """It is read: have the workers renewed one by one, or go on as before."""
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
        self._lacked = {role: frozenset(child.lacks) for role, child in self._children.items()}
        self._roll_out(code, self._roles.renewed())

    def _roll_out(self, code: Code, roles: Iterable[str]) -> None:
        self._roles.learn(code)
        self._host.tell(ROUTER, "tasks", code.tasks)
        for role in (ROUTER, LISTENER):
            self._host.tell(role, "policy", self._settings.policy)
        self._host.tell(GUARDIAN, "strangers", self._roles.may_strangers_stop())
        self._rollout = Rollout(roles, self._settings.drain_time)

    def _missed(self, child: Child) -> list[str]:
        """The modules for want of which all go back: the worker that was renewed had them before, or no other has."""
        if child.role not in self._renewed:
            return []
        known = {module.name for module in self._before.modules if not module.failure}
        return [
            name
            for name in child.lacks
            if (name in known and name not in self._lacked.get(child.role, ())) or not self._has_another(child, name)
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
        return any(name not in o.lacks and (was_known or o.role in self._renewed) for o in others if o.online)

    def _go_back(self, problem: str) -> None:
        self._problem = problem
        if self._settings.policy is not None:
            self._settings.policy.clear()
            self._settings.policy.update(self._policy)
        roles, self._renewed = self._renewed, []
        self._roll_out(self._before, roles)
