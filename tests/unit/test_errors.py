"""The tree of errors: its shape, and that any of them can cross the wire."""

from __future__ import annotations

import builtins
import copy
import pickle
from typing import Any

import msgspec
import pytest

import taskengine
from taskengine import _fastpath, errors
from taskengine.broker.binary import error_entry
from taskengine.errors import BY_CODE, BadArguments, TaskEngineError, TaskFailed, from_wire, printable, text_of, to_wire

KINDS = list(BY_CODE.values())


class Silent(Exception):
    """One that has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Bare(BadArguments):
    """One that was made by halves."""

    def __init__(self) -> None:
        pass


def received(error: TaskEngineError) -> TaskEngineError:
    """The error as it arrives."""
    (data,) = _fastpath.unpack(error_entry(error), 1, lambda data: data)
    code, message, fields = _fastpath.unpack(data, 1, bytes)[0]
    return from_wire(code, message, fields)


def pickled(error: TaskEngineError) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_told_apart_and_the_door_offers_every_error(kind: type[TaskEngineError]) -> None:
    assert BY_CODE[kind.code] is kind
    assert getattr(taskengine, kind.__name__) is kind


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.TaskTimeout, TimeoutError),
        (errors.UnknownTask, LookupError),
        (errors.BadArguments, TypeError),
        (errors.NotAllowed, PermissionError),
        (errors.ProtocolError, ValueError),
        (errors.EngineUnreachable, ConnectionError),
        (errors.SettingsError, ValueError),
        (errors.TaskModuleError, ImportError),
    ],
)
def test_errors_inherit_the_natural_builtin(kind: type[TaskEngineError], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_wire_and_a_pickle_with_its_fields(kind: type[TaskEngineError]) -> None:
    error = kind("said", **dict.fromkeys(kind.field_names, "value"))
    for twin in (received(error), pickled(error)):
        assert (type(twin), str(twin), twin.fields) == (kind, "said", error.fields)


def test_fields_are_attributes_and_unknown_ones_are_refused() -> None:
    error = TaskFailed("x", type="KeyError")
    assert (error.type, error.traceback) == ("KeyError", None)
    with pytest.raises(AttributeError):
        _ = error.colour
    with pytest.raises(TypeError, match="colour"):
        TaskFailed("x", colour="red")


@pytest.mark.parametrize(
    "error",
    [
        BadArguments("x", name=object()),
        BadArguments("x", name="\ud800"),
        BadArguments(42),  # type: ignore[arg-type]
        TaskFailed("\udc80", type=1j),
        Bare(),
    ],
)
def test_an_error_of_any_make_arrives_as_an_error(error: TaskEngineError) -> None:
    assert isinstance(received(error), TaskEngineError)


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), ("a \udc80", "a \\udc80"), (42, "42"), (Silent(), "<a Silent without text: RuntimeError>")],
)
def test_anything_has_a_text_that_can_be_sent(value: Any, text: str) -> None:
    assert text_of(value) == text
    text_of(value).encode()


def test_a_code_from_a_newer_engine_is_an_error_all_the_same() -> None:
    error = from_wire(99, "new", {"x": 1})
    assert type(error) is TaskEngineError
    assert to_wire(error) == (0, "new", {})


ACTING = "\x1b[2J\x07 \x9b31m \x85 \u202eabc\u2066 \u200f\u061c\u2028 \x7f \r\x00\ufeff"
"""Characters that clear a terminal, colour it, or change the direction of the text."""


def test_no_error_holds_what_acts_on_a_terminal() -> None:
    error = from_wire(1, ACTING, {"type": ACTING, "traceback": f"\ta\n{ACTING}"})
    unknown = from_wire(2, ACTING, {"name": ACTING, "nearest": [ACTING]})
    for text in (str(error), error.type, error.traceback, str(unknown), unknown.name, *unknown.nearest):
        assert all(character.isprintable() or character in "\t\n" for character in text), ascii(text)
    assert str(error).startswith(r"\x1b[2J\x07 \u009b31m")
    assert error.traceback.startswith("\ta\n"), "lines stay lines"
    assert printable("naïve → 日本 🤖\t\n") == "naïve → 日本 🤖\t\n"


def test_json_that_is_printable_says_the_same() -> None:
    text = printable(msgspec.json.encode({ACTING: [ACTING]}).decode())
    assert text.isprintable()
    assert msgspec.json.decode(text) == {ACTING: [ACTING]}


BUILTINS = [
    kind
    for name, kind in vars(builtins).items()
    # 3.13 has one of its own use
    if isinstance(kind, type) and issubclass(kind, BaseException) and not name.startswith("_")
]
NEVER = {StopIteration, StopAsyncIteration, KeyboardInterrupt, SystemExit, GeneratorExit, BaseExceptionGroup}
NOT_OF_TEXT = {UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError, ExceptionGroup}
PLAIN = NEVER | NOT_OF_TEXT | {BaseException, Exception}


@pytest.mark.parametrize("kind", BUILTINS, ids=lambda kind: kind.__name__)
def test_a_failure_is_also_the_builtin_that_it_names(kind: type[BaseException]) -> None:
    sent = TaskFailed(f"{kind.__name__}: boom", type=kind.__name__, traceback="Traceback…")
    error = received(sent)
    assert isinstance(error, TaskFailed)
    assert isinstance(error, kind) == (kind not in PLAIN or kind in (BaseException, Exception))
    assert not isinstance(error, tuple(NEVER | NOT_OF_TEXT))
    assert (str(error), repr(error), to_wire(error)) == (str(sent), repr(sent), to_wire(sent))
    assert (error.type, error.traceback) == (kind.__name__, "Traceback…")
    for twin in (pickled(error), copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), str(twin), twin.fields) == (type(error), str(error), error.fields)
    with pytest.raises(TaskFailed):
        raise error


@pytest.mark.parametrize("name", ["OwnError", "os.system", "print", "int", "ValueError.__class__", "", None, 7, ["x"]])
def test_no_other_name_leads_to_anything(name: object) -> None:
    error = from_wire(1, "boom", {"type": name, "traceback": None})
    assert type(error) is TaskFailed
    assert error.type == name


def test_no_other_error_becomes_a_builtin_by_its_fields() -> None:
    assert type(from_wire(2, "no", {"name": "ValueError", "type": "ValueError"})) is errors.UnknownTask
