"""Which functions are tasks and sources: marked by decorators, found in modules, named in the settings.

Nothing is imported, evaluated or called by a name that came over the wire: a task exists only once it stands here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from taskengine.errors import TaskModuleError
from taskengine.messages import TaskInfo
from taskengine.spelling import closest
from taskengine.wire import RESERVED_LANES

if TYPE_CHECKING:
    from taskengine.hardware import Machine

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__taskengine__"
PREFIX = "task_"
NEAREST = 3
"""How many names an unknown one is told that it may have meant."""
BUILT_IN = "taskengine.sources"


class TaskMark(msgspec.Struct, frozen=True):
    """What `@task` says of a function; `timeout` in s."""

    name: str | None = None
    lane: str = ""
    timeout: float | None = None
    idempotent: bool = False
    urgent: bool = False


class SourceMark(msgspec.Struct, frozen=True):
    """What `@source` says of a function; `period` in s."""

    topic: str
    period: float


class Task(msgspec.Struct, frozen=True):
    """A registered function and how it is to be run."""

    name: str
    function: Callable[..., Any]
    lane: str
    timeout: float | None
    idempotent: bool
    urgent: bool = False

    def info(self) -> TaskInfo:
        """What clients are told."""
        signature = _signature(self.function)
        doc = inspect.getdoc(self.function) or ""
        module = self.function.__module__ or ""
        return TaskInfo(self.name, self.lane, signature, doc, self.timeout, self.idempotent, module, self.urgent)


def _signature(function: Callable[..., Any]) -> str:
    for evaluate in True, False:  # annotations may name what exists for the type checker only
        try:
            return str(inspect.signature(function, eval_str=evaluate))
        except (ValueError, TypeError, NameError, AttributeError, SyntaxError):
            continue
    return "(...)"


class Source(msgspec.Struct, frozen=True):
    """A function that is sampled every `period` s and published on `topic`."""

    topic: str
    function: Callable[[], Any]
    period: float


@overload
def task(function: F, /) -> F: ...
@overload
def task(
    *,
    name: str | None = None,
    lane: str = "",
    timeout: float | None = None,
    idempotent: bool = False,
    urgent: bool = False,
) -> Callable[[F], F]: ...
def task(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    lane: str = "",
    timeout: float | None = None,
    idempotent: bool = False,
    urgent: bool = False,
) -> F | Callable[[F], F]:
    """Register a function as a task, under its own name or `name`.

    `lane` binds it to a group of workers, `timeout` is the longest it may run, in s, an `idempotent` task may run
    twice, and an `urgent` one overtakes all that waits, whatever the priority that it is called with. The function
    itself is unchanged. Raises TaskModuleError for what cannot be a task.
    """
    if not (name is None or (isinstance(name, str) and name)):
        raise TaskModuleError(f"name is text, not {name!r}")
    if not isinstance(lane, str):
        raise TaskModuleError(f"lane is text, not {lane!r}")
    if not (timeout is None or (isinstance(timeout, (int, float)) and timeout > 0)):
        raise TaskModuleError(f"timeout is a positive number of seconds, not {timeout!r}")
    if lane.startswith(RESERVED_LANES):
        own = " or ".join(RESERVED_LANES)
        raise TaskModuleError(f"lane {lane!r}: names that begin with {own} are the engine's own")
    mark = TaskMark(name, lane, timeout, idempotent, urgent)

    def register(function: F) -> F:
        _check(function, "task")
        setattr(function, MARK, mark)
        return function

    return register if function is None else register(function)


def source(topic: str, period: float = 1.0) -> Callable[[F], F]:
    """Register a function without arguments, sampled every `period` s, its value published on `topic`.

    Raises TaskModuleError for what cannot be a source.
    """
    if not (isinstance(topic, str) and topic):
        raise TaskModuleError(f"a source's topic is text, not {topic!r}: @source('battery.volts', period=0.5)")
    if not (isinstance(period, (int, float)) and period > 0):
        raise TaskModuleError(f"a source's period is a positive number of seconds, not {period!r}")

    def register(function: F) -> F:
        _check(function, "source")
        setattr(function, MARK, SourceMark(topic, period))
        return function

    return register


def _check(function: Any, what: str) -> None:
    if not callable(function):
        raise TaskModuleError(f"{function!r} cannot be a {what}: it is no function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TaskModuleError(f"{function.__name__} cannot be a {what}: a worker runs one at a time, write `def`")


class Registry:
    """The tasks by name, the sources by topic, and an error for each module that did not load."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.sources: dict[str, Source] = {}
        self.failures: list[TaskModuleError] = []

    @classmethod
    def load(cls, modules: Iterable[str], machine: Machine | None = None) -> Registry:
        """Load modules, folders and files, the built-in sources, and the tasks of a machine; what fails is left out and
        named."""
        registry = cls()
        for function, options in machine.tasks() if machine else ():
            registry._add_task(function, TaskMark(**options))
        for entry in (BUILT_IN, *modules):
            for name, load in _entries(entry):
                try:
                    registry._register(load())
                except (Exception, SystemExit) as error:
                    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                    registry.failures.append(TaskModuleError(f"task module {name}: {reason}", module=name))
        return registry

    def nearest(self, name: str, may_call: Callable[[str, str], bool] = lambda task, lane: True) -> list[str]:
        """The names of tasks that `name` may have meant, the likeliest first; only of those that one may call."""
        known = [task.name for task in self.tasks.values() if may_call(task.name, task.lane)]
        return closest(name, known, count=NEAREST)

    def _add_task(self, function: Callable[..., Any], mark: TaskMark) -> None:
        _add(self.tasks, _task(function, mark))

    def _register(self, module: ModuleType) -> None:
        tasks, sources = dict(self.tasks), dict(self.sources)
        for attribute, function in list(vars(module).items()):
            mark = getattr(function, MARK, None)
            if mark is None and attribute.startswith(PREFIX) and inspect.isfunction(function):
                _check(function, "task")
                mark = TaskMark(name=attribute)
            if isinstance(mark, TaskMark):
                _add(tasks, _task(function, mark))
            elif isinstance(mark, SourceMark):
                _add(sources, Source(mark.topic, function, mark.period))
        self.tasks, self.sources = tasks, sources


R = TypeVar("R", Task, Source)


def _task(function: Callable[..., Any], mark: TaskMark) -> Task:
    name = mark.name or function.__name__
    return Task(name, function, mark.lane, mark.timeout, mark.idempotent, mark.urgent)


def _add(known: dict[str, R], entry: R) -> None:
    name = entry.name if isinstance(entry, Task) else entry.topic
    other = known.setdefault(name, entry)
    if other.function is not entry.function:
        raise TaskModuleError(f"{name!r} is registered by {_place(other)} and by {_place(entry)}")


def _place(entry: Task | Source) -> str:
    """The file, or else the module, that has the function."""
    code = getattr(inspect.unwrap(entry.function), "__code__", None)
    return code.co_filename if code else entry.function.__module__


def _entries(entry: str) -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    """The modules that one entry of TASKS stands for: each with its name, and how it is loaded."""
    path = Path(entry)
    if os.path.isdir(path):  # unlike Path.is_dir, where the current folder may not be entered too
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        if not files:
            yield entry, partial(_missing, f"the folder {entry} holds no .py file")
        for file in files:
            yield str(file), partial(_load_file, file)
    elif entry.endswith(".py"):
        yield entry, partial(_load_file, path)
    else:
        yield entry, partial(importlib.import_module, entry)


def places(entry: str) -> list[Path]:
    """The files, and the folder, that one entry of TASKS is loaded from, found without loading any."""
    path = Path(entry)
    if os.path.isdir(path):
        return [path, *sorted(path.glob("*.py"))]
    if entry.endswith(".py"):
        return [path]
    top, _, rest = entry.partition(".")
    spec = importlib.util.find_spec(top)  # not of a module in a package, which would load the package
    if spec is None or not (spec.origin and spec.has_location):
        return []
    inner = [Path(folder, *rest.split(".")) for folder in spec.submodule_search_locations or () if rest]
    return [Path(spec.origin), *(path.with_suffix(".py") if not path.is_dir() else path for path in inner)]


def _missing(reason: str) -> ModuleType:
    raise TaskModuleError(reason)


def _load_file(path: Path) -> ModuleType:
    """Load a file under a name of its own, so that two folders may both hold an `arm.py`."""
    if not path.is_file():
        _missing(f"there is no file {path}")
    name = f"taskengine_file_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return _missing(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
