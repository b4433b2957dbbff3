"""Converts the arguments of a task to the types that its function names, before it runs.

What is decided here is decided once, when the function is loaded. Functions that name no other types than those that
arguments have of themselves are called as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import CodeType, NoneType
from typing import Any, Final, get_type_hints

from taskengine.errors import BadArguments, text_of
from taskengine.protocol.conversion import Convert, converter

UNCONVERTED: Final = frozenset({int, float, str, bool, Any, object, None, NoneType, inspect.Parameter.empty})
"""Annotations that need no converter."""
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ConvertedCall:
    """A function of task `task`, called with the arguments that `convert` makes of those that came."""

    def __init__(self, task: str, function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> None:
        self._task = task
        self._function = function
        self._defaults = {name: parameter.default for name, parameter in parameters.items()}
        converters = {name: _converter(function, parameter) for name, parameter in parameters.items()}
        self._named = {name: converters[name] for name, each in parameters.items() if each.kind in _NAMED}
        self._placed = [(name, converters[name]) for name, each in parameters.items() if each.kind in _POSITIONAL]
        kinds = {each.kind: (name, converters[name]) for name, each in parameters.items()}
        self._more = kinds.get(inspect.Parameter.VAR_POSITIONAL, ("", None))
        self._others = kinds.get(inspect.Parameter.VAR_KEYWORD, ("", None))
        self.converts = any(converters.values())
        """Whether there is anything to convert."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function. Raises BadArguments, which names the argument, before it runs."""
        return self._function(*self._positional(args), **self._keywords(kwargs))

    def _positional(self, args: tuple[Any, ...]) -> list[Any]:
        converted = [self._converted(*place, value) for place, value in zip(self._placed, args, strict=False)]
        return converted + [self._converted(*self._more, value) for value in args[len(converted) :]]

    def _keywords(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        rest = self._others[1]
        return {name: self._converted(name, self._named.get(name, rest), value) for name, value in kwargs.items()}

    def _converted(self, name: str, convert: Convert | None, value: Any) -> Any:
        if convert is None or value is self._defaults.get(name, inspect.Parameter.empty):
            return value
        try:
            return convert(value)
        except Exception as error:  # a dataclass may check itself
            raise BadArguments(f"{self._task}: argument {name!r}: {text_of(error)}", name=self._task) from error


CALL: Final[CodeType] = ConvertedCall.__call__.__code__
"""The code that stands in a traceback between the worker's turn and the task's function."""


def converting(task: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its arguments converted; the function itself if there is nothing to convert.

    Of a decorated function its wrapper's own annotations count, since the arguments are the wrapper's.
    """
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (ValueError, TypeError):  # a function of C without a signature
        return function
    if UNCONVERTED.issuperset(_annotation(function, each) for each in parameters.values()):
        return function
    call = ConvertedCall(task, function, parameters)
    return call if call.converts else function


def _converter(function: Callable[..., Any], parameter: inspect.Parameter) -> Convert | None:
    kind = _annotation(function, parameter)
    is_free = kind in (Any, object, inspect.Parameter.empty)
    return None if is_free else converter(kind)


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type that a parameter names; `empty` where it names none that exists at run time."""
    kind = parameter.annotation
    try:
        if isinstance(kind, str):
            holder = type("holder", (), {"__annotations__": {"it": kind}})
            kind = get_type_hints(holder, globalns=_globals_of(function), include_extras=True)["it"]
        hash(kind)
    except Exception:  # it may name what exists for the type checker only
        return inspect.Parameter.empty
    return kind


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    while hasattr(function, "func"):  # a partial
        function = function.func
    if not hasattr(function, "__globals__"):  # an object that is called
        function = type(function).__call__
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found
