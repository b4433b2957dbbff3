"""Surveys the registrations of TASKS as far as they can be read without an import, and keeps the source."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping

import msgspec

from taskengine.broker.topics import owner
from taskengine.config.machine import Machine
from taskengine.errors import TaskModuleError
from taskengine.protocol.messages import TaskInfo
from taskengine.registry.discovery import DOOR, MODULE, NAME, NOTHING, Declared, Found, discover, imported
from taskengine.registry.loading import install, is_users, source_of
from taskengine.registry.modules import Place, file_of, places_of
from taskengine.registry.options import refuse_pins, unfit
from taskengine.registry.registry import BUILT_IN, Registry, TaskMark, source, task

MACHINE = "[hardware]"
"""The name, in messages, of the module of the machine's tasks."""


class Module(msgspec.Struct):
    """A module of TASKS and its registrations: `origins` says where each task and source is defined.

    `doubt` says why only an import can tell, and `failure` why the module cannot be loaded; "" otherwise.
    """

    name: str
    module: str
    path: str = ""
    tasks: list[TaskInfo] = []
    topics: list[str] = []
    origins: dict[str, str] = {}
    complaints: list[str] = []
    doubt: str = ""
    failure: str = ""

    @property
    def place(self) -> Place:
        """The place that it is loaded from."""
        return Place(self.name, self.module, self.path, self.failure)


class TaskCode(msgspec.Struct):
    """The modules, and the source of them and of the users' modules that they import, by absolute paths."""

    modules: list[Module] = []
    sources: dict[str, bytes] = {}

    @property
    def tasks(self) -> list[TaskInfo]:
        """All registered tasks."""
        return [info for module in self.modules for info in module.tasks]

    @property
    def topics(self) -> list[str]:
        """The topics of all sources."""
        return [topic for module in self.modules for topic in module.topics]

    @property
    def failures(self) -> list[str]:
        """A line for each module, or function, that registers nothing."""
        lines = []
        for module in self.modules:
            reasons = [module.failure] if module.failure else []
            lines += [f"task module {module.name}: {reason}" for reason in (*reasons, *module.complaints)]
        return lines

    def of_lane(self, lane: str) -> list[Module]:
        """Return the modules that have tasks in a lane."""
        return [module for module in self.modules if any(info.lane == lane for info in module.tasks)]

    def of_data_worker(self, number: int, data_workers: int) -> list[Module]:
        """Return the modules that have sources which a data worker samples."""
        return [m for m in self.modules if any(owner(topic, data_workers) == number for topic in m.topics)]

    def module_of(self) -> dict[str, str]:
        """Return the name of the module of each task."""
        return {info.name: module.name for module in self.modules for info in module.tasks}

    def settle(self) -> None:
        """Take out registrations that an earlier module has made.

        The same function is one task, another is an error.
        """
        known: dict[str, str] = {}
        for module in self.modules:
            names = [*(info.name for info in module.tasks), *(f"source {topic}" for topic in module.topics)]
            twice = [name for name in names if name in known]
            other = [name for name in twice if known[name] != module.origins.get(name)]
            if other:
                first, second = (_file(where) for where in (known[other[0]], module.origins.get(other[0], "")))
                module.failure = f"TaskModuleError: {other[0]!r} is registered by {first} and by {second}"
                module.tasks, module.topics = [], []
                continue
            module.tasks = [info for info in module.tasks if info.name not in known]
            module.topics = [topic for topic in module.topics if f"source {topic}" not in known]
            known |= {name: module.origins.get(name, module.name) for name in names if name not in known}


class Plan(msgspec.Struct):
    """The modules that workers load when they start: the `code`, without modules that have ended such a process.

    Those are `excluded` for a worker's place, with the reason.
    """

    code: TaskCode = msgspec.field(default_factory=TaskCode)
    excluded: dict[int, dict[str, str]] = {}


def check_pins(module: Module, machine: Machine | None) -> None:
    """Have a module fail that has a task of a lane with pins that would run again, or by itself."""
    try:
        for info in module.tasks:
            refuse_pins(machine.lanes if machine else (), info.lane, info.name, info.retry, info.schedule)
    except TaskModuleError as error:
        module.failure = f"TaskModuleError: {error}"
        module.tasks, module.topics = [], []


def _file(origin: str) -> str:
    return origin.rpartition(":")[0] or origin


def load_code(
    modules: Iterable[Module],
    code: TaskCode,
    began: Callable[[Module], None] = lambda module: None,
    *,
    machine: Machine | None = None,
    excluded: Mapping[str, str] | None = None,
    lane: str | None = None,
) -> tuple[Registry, list[tuple[Module, str]]]:
    """Load modules of `code`, with the tasks of a machine.

    Return the registrations, and the failed modules with reasons.

    `began` is called with each module before it is loaded. The `excluded` ones are left out, for the given reason. For
    missing tasks of `lane`, the registry knows the reason.
    """
    install(code.sources)
    registry, failed = Registry(), []
    registry.add_machine(machine)
    registry.lanes = {info.name: info.lane for info in code.tasks}
    for module in modules:
        if not module.module:
            continue
        began(module)
        reason = (excluded or {}).get(module.name, "")
        if reason:
            registry.leave_out(module.place, reason)
        reason = reason or registry.add(module.place)
        if reason:
            failed.append((module, reason))
        for info in module.tasks:
            if info.lane == lane and info.name not in registry.tasks:
                is_gone = f"{module.name} has no {info.name} once it is loaded"
                registry.lacking[info.name] = f"{module.name} failed to load: {reason}" if reason else is_gone
    return registry, failed


class _Surveyor:
    """Reads each file once."""

    def __init__(self) -> None:
        self.sources: dict[str, bytes] = {}
        self._trees: dict[str, ast.Module | None] = {}
        self._found: dict[str, Found] = {}

    def tree(self, path: str) -> ast.Module:
        """Return the syntax tree of a file. Raises OSError, SyntaxError, ValueError, RecursionError, MemoryError."""
        known = self._trees.get(path)
        if known is not None:
            return known
        with open(path, "rb") as file:
            text = file.read()
        if is_users(path):
            self.sources[path] = text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is compiled again when it is loaded, and warns then
            tree = ast.parse(text, path)
        self._trees[path] = tree
        for module, level, names in imported(tree):
            for other in self._files(path, module, level, names):
                if other not in self._trees:
                    self._trees[other] = None
                    self._read_quietly(other)
        return tree

    def found(self, path: str) -> Found:
        """Return the registrations in a file. Raises as `tree`."""
        if path not in self._found:
            self._found[path] = Found([], [], "", frozenset())  # for modules that import each other
            tree = self.tree(path)
            try:
                self._found[path] = discover(tree, lambda *name: self._offers(path, *name))
            except RecursionError:
                self._found[path] = Found([], [], "it is nested too deeply to be read", frozenset())
        return self._found[path]

    def _read_quietly(self, path: str) -> bool:
        try:
            self.tree(path)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return False  # its import says what is wrong
        return True

    def _files(self, path: str, module: str, level: int, names: Iterable[str] = ()) -> list[str]:
        """Return the users' files that an import in the file `path` runs."""
        top = module.partition(".")[0]
        if not level and (top == DOOR or top in sys.stdlib_module_names):
            return []
        folder = os.path.dirname(path)
        if level:
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            module = f"{os.path.basename(folder)}.{module}".rstrip(".")
            folder = os.path.dirname(folder)
        files = list(source_of(module, [folder]))
        for name in names:
            files += source_of(f"{module}.{name}", [folder])
        return list(dict.fromkeys(files))

    def _offers(self, path: str, module: str, level: int, name: str) -> str:
        """Return what a name of another module may be; see `discovery.Offers`."""
        files = self._files(path, module, level)
        inner = set(self._files(path, module, level, [name] if name and name != "*" else [])) - set(files)
        if inner:
            return MODULE if any(self._has_tasks(file) for file in inner) else NOTHING
        if not files or not self._has_tasks(files[-1]):
            return NOTHING
        found = self._found[files[-1]]
        if not name:
            return MODULE
        return NAME if name == "*" or found.doubt or name in found.offers else NOTHING

    def _has_tasks(self, path: str) -> bool:
        if not self._read_quietly(path):
            return False
        found = self.found(path)
        return bool(found.offers or found.doubt)


def survey(entries: Iterable[str], machine: Machine | None = None) -> TaskCode:
    """Read the registrations of the entries of TASKS, of the built-in sources, and of a machine."""
    surveyor = _Surveyor()
    modules = []
    if machine is not None:
        registry = Registry()
        registry.add_machine(machine)
        modules.append(Module(MACHINE, "", tasks=[known.info() for known in registry.tasks.values()]))
    for entry in (BUILT_IN, *entries):
        modules += [_read(place, surveyor) for place in places_of(entry)]
    return TaskCode(modules, surveyor.sources)


def _read(place: Place, surveyor: _Surveyor) -> Module:
    module = Module(place.name, place.module, place.path, failure=place.problem)
    file = "" if module.failure else file_of(place)
    if module.failure:
        module.failure = f"TaskModuleError: {module.failure}"
        return module
    if not file:
        module.doubt = "its file is not known"
        return module
    try:
        found = surveyor.found(file)
        for declared in found.declared:
            _declare(module, file, declared)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, TaskModuleError) as error:
        module.failure = f"{type(error).__name__}: {error}"
        module.tasks, module.topics = [], []
        return module
    module.complaints = found.complaints
    module.doubt = found.doubt
    if not (found.declared or found.complaints):
        module.doubt = module.doubt or "nothing is registered in it"
    return module


def _declare(module: Module, file: str, declared: Declared) -> None:
    """Add the registrations in the module's file. Raises TaskModuleError for what its import would refuse."""
    if declared.yields and declared.kind == "source":
        raise TaskModuleError(f"{declared.function} cannot be a source: it is a generator, use `return`")
    if declared.is_async and declared.kind == "source":
        raise TaskModuleError(f"{declared.function} cannot be a source: each source has a thread, write `def`")
    origin, options = f"{file}:{declared.line}", declared.options
    try:
        if declared.kind == "source":
            source(**options)
            name = f"source {options['topic']}"
            module.topics = [*module.topics, options["topic"]]
        else:
            task(**options)
            name = options.get("name") or declared.function
            mark = TaskMark(**{**options, "name": name, "retry_on": ()})
            if mark.schedule(name) and not declared.is_callable:
                raise unfit(name)
            info = TaskInfo(
                *(name, mark.lane, declared.signature, declared.doc, mark.timeout, mark.idempotent, module.module),
                *(mark.urgent, mark.retry(), mark.schedule(name), declared.yields),
            )
            module.tasks = [*module.tasks, info]
    except TypeError as error:  # an unknown keyword
        raise TaskModuleError(f"line {declared.line}: {error}") from None
    if name in module.origins:
        raise TaskModuleError(f"{name!r} is registered twice, in line {module.origins[name].rpartition(':')[2]} too")
    module.origins = {**module.origins, name: origin}


def read_by_import(module: Module, code: TaskCode) -> Module:
    """Import a module here, and return its registrations."""
    registry, failed = load_code([module], code)
    made = msgspec.structs.replace(module, doubt="", failure="", tasks=[], topics=[], origins={})
    said = [str(failure).removeprefix(f"task module {module.name}: ") for failure in registry.failures]
    if failed:
        made.failure = failed[0][1]
        return made
    made.complaints = module.complaints or said
    made.tasks = [msgspec.structs.replace(known.info(), module=module.module) for known in registry.tasks.values()]
    made.topics = list(registry.sources)
    made.origins = {name: known.origin for name, known in registry.tasks.items()}
    made.origins |= {f"source {topic}": known.origin for topic, known in registry.sources.items()}
    return made
