"""Finds tasks and sources: marked by decorators, in the modules that the settings name.

No name from the wire leads to an import, an evaluation or a call: a task exists only once it is registered here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from taskengine.config.spelling import closest
from taskengine.errors import TaskModuleError, text_of
from taskengine.protocol.layouts import MODULE_MARK, RESERVED_LANES
from taskengine.protocol.marks import MARK, PREFIX
from taskengine.protocol.messages import RetryPolicy, ScheduleState, TaskInfo
from taskengine.registry.arguments import converting
from taskengine.registry.discovery import method_hint
from taskengine.registry.loading import load
from taskengine.registry.modules import Place, places_of
from taskengine.registry.options import Errors, check_call, check_retries, refuse_pins
from taskengine.registry.timetable import check_timing

if TYPE_CHECKING:
    from taskengine.config.machine import Machine

F = TypeVar("F", bound=Callable[..., Any])
NEAREST = 3
"""How many similar names an error about an unknown name suggests."""
BUILT_IN = "taskengine.sources"


class TaskMark(msgspec.Struct, frozen=True):
    """The options of `@task` for a function; `timeout`, `backoff` and `every` in s."""

    name: str | None = None
    lane: str = ""
    timeout: float | None = None
    idempotent: bool = False
    urgent: bool = False
    retries: int = 0
    backoff: float = 0.0
    retry_on: Errors = ()
    every: float | None = None
    at: str | None = None
    cron: str | None = None

    def retry(self) -> RetryPolicy | None:
        """How often the task runs again after its own errors; None for never."""
        return RetryPolicy(self.retries, self.backoff) if self.retries else None

    def schedule(self, name: str) -> ScheduleState | None:
        """When the task, of that name, runs by itself; None for never."""
        if self.every is None and self.at is None and self.cron is None:
            return None
        return ScheduleState(name, float(self.every or 0.0), self.at or "", self.cron or "")


class SourceMark(msgspec.Struct, frozen=True):
    """The options of `@source` for a function; `period` in s."""

    topic: str
    period: float


class Task(msgspec.Struct, frozen=True):
    """A registered function and how it is to be run; `call` is what runs it, with its arguments converted."""

    name: str
    function: Callable[..., Any]
    lane: str
    timeout: float | None
    idempotent: bool
    urgent: bool = False
    retry: RetryPolicy | None = None
    retry_on: Errors = ()
    schedule: ScheduleState | None = None
    call: Callable[..., Any] | None = None

    @property
    def callable(self) -> Callable[..., Any]:
        """What runs it: the function, or its function with converted arguments."""
        return self.call or self.function

    @property
    def origin(self) -> str:
        """The file and the line of the function."""
        return _origin(self.function)

    @property
    def is_async(self) -> bool:
        """Whether the function is an `async def`, or wraps one."""
        return is_coroutine_function(self.function) or _is_any(self.function, inspect.isasyncgenfunction)

    @property
    def is_generator(self) -> bool:
        """Whether the function is a generator, also an async one, or wraps one: its values come as a stream."""
        return _is_any(self.function, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

    @property
    def can_end_early(self) -> bool:
        """Whether the task can be ended while it runs, without its worker."""
        return self.is_async or self.is_generator

    def info(self) -> TaskInfo:
        """The description that clients get."""
        signature = _signature(self.function)
        doc = inspect.getdoc(self.function) or ""
        module = self.function.__module__ or ""
        repeats = self.retry, self.schedule, self.is_generator
        return TaskInfo(
            *(self.name, self.lane, signature, doc, self.timeout, self.idempotent, module, self.urgent, *repeats)
        )


def is_coroutine_function(function: Any) -> bool:
    """Return whether a call of the function gives a coroutine: an `async def`, or what wraps one or calls one."""
    return _is_any(function, inspect.iscoroutinefunction)


def _is_any(function: Any, *kinds: Callable[[Any], bool]) -> bool:
    """Return whether the function, what it wraps, or the method by which it is called, is of one of these kinds."""
    while function is not None:
        call = _call_of(function)
        if any(is_kind(function) or is_kind(call) for is_kind in kinds):
            return True
        function = function.func if isinstance(function, partial) else getattr(function, "__wrapped__", None)
    return False


def _call_of(function: Any) -> Any:
    """Return the method by which an object is called."""
    return inspect.getattr_static(type(function), "__call__", None)


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

    @property
    def origin(self) -> str:
        """The file and the line of the function."""
        return _origin(self.function)


def _origin(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(getattr(function, "__module__", ""))


@overload
def task(
    function: F,
    /,
    *,
    name: str | None = None,
    lane: str = "",
    timeout: float | None = None,
    idempotent: bool = False,
    urgent: bool = False,
) -> F: ...
@overload
def task(
    *,
    name: str | None = None,
    lane: str = "",
    timeout: float | None = None,
    idempotent: bool = False,
    urgent: bool = False,
    retries: int = 0,
    backoff: float = 0.0,
    retry_on: Errors | type[Exception] = (Exception,),
    every: float | None = None,
    at: str | None = None,
    cron: str | None = None,
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
    retries: int = 0,
    backoff: float = 0.0,
    retry_on: Errors | type[Exception] = (Exception,),
    every: float | None = None,
    at: str | None = None,
    cron: str | None = None,
) -> F | Callable[[F], F]:
    """Register a function as a task, under its own name or `name`.

    `lane` binds it to a group of workers, and `timeout` is the longest it may run, in s. An `idempotent` task may run
    twice. An `urgent` one overtakes all waiting tasks, whatever priority it is called with. The function itself is
    unchanged.

    A method is registered with its object, by a call in the module: `task(arm.wave, name="arm.wave")`. In the same way
    any function is registered without a name in the module.

    A task that raises one of the exceptions `retry_on` runs again, up to `retries` times: about `backoff` s later, then
    after twice that, and so on. With `every` (in s), `at` (a time of day, "07:30") or `cron` (the five fields of
    crontab(5)) the engine runs the task by itself.

    Raises TaskModuleError for a function that cannot be a task.
    """
    if not (name is None or (isinstance(name, str) and name)):
        raise TaskModuleError(f"name is text, not {name!r}")
    if not isinstance(lane, str):
        raise TaskModuleError(f"lane is text, not {lane!r}")
    if not (timeout is None or (isinstance(timeout, (int, float)) and timeout > 0)):
        raise TaskModuleError(f"timeout is a positive number of seconds, not {timeout!r}")
    if MODULE_MARK in lane:
        raise TaskModuleError(f"lane {lane!r}: the name of a lane has no NUL in it")
    if lane.startswith(RESERVED_LANES):
        own = " or ".join(RESERVED_LANES)
        raise TaskModuleError(f"lane {lane!r}: names that begin with {own} are the engine's own")
    errors = check_retries(retries, backoff, retry_on)
    check_timing(every, at, cron)
    mark = TaskMark(name, lane, timeout, idempotent, urgent, retries, backoff, errors, every, at, cron)

    def register(function: F) -> F:
        _check(function, "task")
        if mark.schedule(""):
            check_call(function)
        _mark(function, mark, "task")
        return function

    if function is not None and (inspect.ismethod(function) or name is not None):
        _check(function, "task")
        _given.setdefault(_module_at_import(), []).append((function, mark))
        return function
    return register if function is None else register(function)


def source(topic: str, period: float = 1.0) -> Callable[[F], F]:
    """Register a function without arguments, sampled every `period` s, its value published on `topic`.

    Raises TaskModuleError for a function that cannot be a source.
    """
    if not (isinstance(topic, str) and topic):
        raise TaskModuleError(f"a source's topic is text, not {topic!r}: @source('battery.volts', period=0.5)")
    if not (isinstance(period, (int, float)) and period > 0):
        raise TaskModuleError(f"a source's period is a positive number of seconds, not {period!r}")

    def register(function: F) -> F:
        _check(function, "source")
        _mark(function, SourceMark(topic, period), "source")
        return function

    return register


def _module_at_import() -> str:
    """Return the name of the module whose import is calling; "" for none."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _mark(function: Callable[..., Any], mark: TaskMark | SourceMark, what: str) -> None:
    try:
        setattr(function, MARK, mark)
    except (AttributeError, TypeError):  # a bound method, or a function of C
        name = getattr(function, "__name__", "it")
        raise TaskModuleError(
            f"{function!r} cannot be a {what} itself: write a function that calls it, "
            f"`def {name}_{what}(...): return {_spelling(function)}(...)`, and put @{what} on that"
        ) from None
    _marked.append(function)


def _spelling(function: Any) -> str:
    """Describe a bound method, or another function, as one may write it."""
    name = getattr(function, "__name__", "it")
    owner = getattr(function, "__self__", None)
    return name if owner is None or inspect.ismodule(owner) else f"{type(owner).__name__.lower()}.{name}"


def _check(function: Any, what: str) -> None:
    if not callable(function):
        raise TaskModuleError(f"{function!r} cannot be a {what}: it is no function")
    if inspect.isclass(function):
        raise TaskModuleError(f"{function.__name__} cannot be a {what}: it is a class, write a function that uses it")
    if what == "source" and _is_any(function, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        raise TaskModuleError(f"{_spelling(function)} cannot be a source: it is a generator, use `return`")
    if what == "source" and is_coroutine_function(function):
        raise TaskModuleError(f"{_spelling(function)} cannot be a source: each source has a thread, write `def`")


class Registry:
    """The tasks by name, the sources by topic, and an error for each module that did not load.

    `lacking` maps missing tasks to the reason, and `lanes` has the names of all tasks of the engine.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.sources: dict[str, Source] = {}
        self.failures: list[TaskModuleError] = []
        self.lacking: dict[str, str] = {}
        self.lanes: dict[str, str] = {}
        self._pinned: Container[str] = ()

    @classmethod
    def load(cls, modules: Iterable[str], machine: Machine | None = None) -> Registry:
        """Load modules, folders and files, the built-in sources, and the tasks of a machine.

        Modules that fail are left out and named.
        """
        registry = cls()
        registry.add_machine(machine)
        for entry in (BUILT_IN, *modules):
            for place in places_of(entry):
                registry.add(place)
        return registry

    def nearest(self, name: str, may_call: Callable[[str, str], bool] = lambda task, lane: True) -> list[str]:
        """Return the tasks that the caller may call and that `name` may have meant, the likeliest first."""
        lanes = self.lanes | {task.name: task.lane for task in self.tasks.values()}
        known = [task for task, lane in lanes.items() if may_call(task, lane)]
        return closest(name, known, count=NEAREST)

    def add_machine(self, machine: Machine | None) -> None:
        """Add the tasks of a machine."""
        self._pinned = machine.lanes if machine else ()
        for function, options in machine.tasks() if machine else ():
            # which look at their arguments themselves: no stop is to fail for the type of its reason
            _add(self.tasks, _task(function, TaskMark(**options), "", converts=False))

    def add(self, place: Place) -> str:
        """Load a module; return why that failed, or "". No error of the module ends the process."""
        _marked.clear()
        try:
            if place.problem:
                raise TaskModuleError(place.problem)
            self._register(place, load(place.module, place.path))
        except BaseException as error:
            reason = f"{type(error).__name__}: {text_of(error)}" if text_of(error) else type(error).__name__
            self.leave_out(place, reason)
            _given.pop(place.module, None)
            return reason
        finally:
            _marked.clear()
        return ""

    def leave_out(self, place: Place, reason: str) -> None:
        """Note that a module is not loaded."""
        self.failures.append(TaskModuleError(f"task module {place.name}: {reason}", module=place.name))

    def _register(self, place: Place, module: ModuleType) -> None:
        tasks, sources = dict(self.tasks), dict(self.sources)
        registered = set()
        for attribute, function in list(vars(module).items()):
            mark = getattr(function, MARK, None)
            if mark is None and attribute.startswith(PREFIX) and _is_function(function):
                _check(function, "task")
                mark = TaskMark(name=attribute)
            if isinstance(mark, TaskMark):
                entry = _task(function, mark, attribute)
                refuse_pins(self._pinned, entry.lane, entry.name, entry.retry, entry.schedule)
                _add(tasks, entry)
            elif isinstance(mark, SourceMark):
                _add(sources, Source(mark.topic, function, mark.period))
            else:
                continue
            registered.add(id(inspect.unwrap(function)))
        for function, mark in _given.get(module.__name__, ()):
            _add(tasks, _task(function, mark, ""))
        self.tasks, self.sources = tasks, sources
        for function in _marked:
            is_own = getattr(function, "__module__", None) == module.__name__
            if is_own and id(inspect.unwrap(function)) not in registered:
                problem = _unregistered(function)
                self.failures.append(TaskModuleError(f"task module {place.name}: {problem}", module=place.name))


_given: dict[str, list[tuple[Callable[..., Any], TaskMark]]] = {}
"""Functions that were registered by a call of `task`, by the modules that called it."""
_marked: list[Callable[..., Any]] = []
"""Functions decorated since the import of the current module began."""


def _is_function(value: Any) -> bool:
    """Return whether a value with a name task_… may be a task: a function, or something that wraps or calls one."""
    if inspect.isclass(value):
        return False
    calls = getattr(type(value), "__call__", None)  # noqa: B004  # not whether it can be called, but by whose code
    is_wrapper = isinstance(value, partial) or callable(getattr(value, "__wrapped__", None))
    return inspect.isroutine(value) or is_wrapper or inspect.isfunction(calls)


def _unregistered(function: Callable[..., Any]) -> str:
    """Return why a function that was decorated registers nothing."""
    kind = "task" if isinstance(getattr(function, MARK, None), TaskMark) else "source"
    code = getattr(inspect.unwrap(function), "__code__", None)
    line = f"line {code.co_firstlineno}: " if code else ""
    name = getattr(function, "__qualname__", repr(function))
    what = "the method " if "." in name and "<locals>" not in name else ""
    if what:
        return f"{line}@{kind} on {what}{name} registers nothing: {method_hint(kind, name)}"
    return (
        f"{line}@{kind} on {name} registers nothing, since the module has no such function: write a function of "
        f"the module, under a name of its own, and put @{kind} on top of its other decorators"
    )


R = TypeVar("R", Task, Source)


def _task(function: Callable[..., Any], mark: TaskMark, attribute: str, *, converts: bool = True) -> Task:
    name = str(mark.name or getattr(function, "__name__", attribute))
    repeats = mark.retry(), mark.retry_on, mark.schedule(name)
    call = converting(name, function) if converts else function
    return Task(name, function, mark.lane, mark.timeout, mark.idempotent, mark.urgent, *repeats, call)


def _add(known: dict[str, R], entry: R) -> None:
    name = entry.name if isinstance(entry, Task) else entry.topic
    other = known.setdefault(name, entry)
    if other.function is not entry.function:
        raise TaskModuleError(f"{name!r} is registered by {_place(other)} and by {_place(entry)}")


def _place(entry: Task | Source) -> str:
    """Return the file, or else the module, of the function."""
    code = getattr(inspect.unwrap(entry.function), "__code__", None)
    return code.co_filename if code else entry.function.__module__
