"""The arguments of tasks become what the functions name, or the caller is told which does not fit."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import msgspec
import numpy
import pytest

from taskengine.errors import BadArguments
from taskengine.registry.arguments import ConvertedCall, converting
from taskengine.worker.worker import as_failure


class Color(enum.Enum):
    RED = "red"


class Mixed(enum.Enum):
    ONE = 1
    PAIR = (1, "two")


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Limits(NamedTuple):
    low: float
    high: float


class Arm:
    """No value of the wire."""


class Mover(Protocol):
    def move(self) -> None: ...


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = converting("the.task", function)
    assert isinstance(call, ConvertedCall)
    return call(*args, **kwargs)


def one(kind: Any) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        return value

    function.__annotations__["value"] = kind
    return function


@pytest.mark.parametrize(
    ("kind", "came", "value"),
    [
        (Point, {"x": 1}, Point(1)),
        (Point | None, None, None),
        (list[Point], [{"x": 1, "y": 2}], [Point(1, 2.0)]),
        (Color, "red", Color.RED),
        (Mixed, (1, "two"), Mixed.PAIR),
        (Mixed | None, None, None),
        (Decimal, Decimal("1.10"), Decimal("1.10")),
        (Decimal, "1.10", Decimal("1.10")),
        (datetime.timedelta, datetime.timedelta(1), datetime.timedelta(1)),
        (datetime.timedelta, "P1D", datetime.timedelta(1)),
        (datetime.date, "2020-02-02", datetime.date(2020, 2, 2)),
        (uuid.UUID, str(uuid.UUID(int=5)), uuid.UUID(int=5)),
        (tuple[int, int], [1, 2], (1, 2)),
        (Limits, (1.0, 2), Limits(1.0, 2.0)),
        (set[int], [1, 2, 2], {1, 2}),
        (frozenset[int], {1}, frozenset({1})),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (bytes, b"ab", b"ab"),
        (bytearray, b"ab", bytearray(b"ab")),
        (complex, 1j, 1j),
        (Path, "a/b", Path("a/b")),
        (numpy.float64, 1.5, numpy.float64(1.5)),
        (numpy.integer, 2, numpy.int_(2)),
        (numpy.uint8, 2, numpy.uint8(2)),
        (Literal["up", "down"], "up", "up"),
        (Annotated[float, msgspec.Meta(ge=0, le=180)], 90, 90.0),
        (Iterable[int], [1], [1]),
        (int | str, "x", "x"),
        (int | None, None, None),
    ],
)
def test_an_argument_becomes_what_the_function_names(kind: Any, came: Any, value: Any) -> None:
    found = called(one(kind), came)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "came", "why"),
    [
        (Point, {"x": "1"}, r"Expected `int`, got `str` - at `\$\.x`"),
        (Point, {"x": -1}, "x is negative"),
        (Point, 3, "Expected `object`, got `int`"),
        (Color, "blue", "Invalid enum value 'blue'"),
        (Mixed, 7, "7 is not a valid Mixed"),
        (int | None, 1.0, "got `float`"),
        (int | None, True, "got `bool`"),
        (int | None, "1", "got `str`"),
        (bytes, "abcd", "Expected `bytes`, got `str`"),
        (Annotated[float, msgspec.Meta(ge=0, le=180)], 181, "<= 180"),
        (complex, "x", "Expected `complex`, got `str`"),
        (numpy.ndarray, [1], "Expected `numpy.ndarray`, got `list`"),
        (numpy.uint8, "x", "got `str`"),
        (Path, 3, "Expected `Path`, got `int`"),
        (Arm, {}, "Expected `Arm`, got `dict`"),
        (list[int], [[[[1]]]], r"at `\$\[0\]`"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(kind: Any, came: Any, why: str) -> None:
    ran = []

    def function(value: Any) -> None:
        ran.append(value)

    function.__annotations__["value"] = kind
    with pytest.raises(BadArguments, match=rf"the\.task: argument 'value': .*{why}") as caught:
        called(function, came)
    assert caught.value.name == "the.task"
    assert ran == []


def plain(a: int, b: float, c: str, d: bool, e: Any, f: object, *args: Any, g: None = None, **kwargs: Any) -> Any:
    return a


@pytest.mark.parametrize(
    "function",
    [plain, len, dict, lambda value: value, functools.partial(plain, 1), one(Mover), one(Point | Limits | Arm)],
)
def test_a_function_that_names_no_other_types_is_called_as_it_is(function: Callable[..., Any]) -> None:
    assert converting("the.task", function) is function


def test_the_other_annotations_of_a_converted_function_hold_too() -> None:
    def function(point: Point, times: int, speed: float = 1.0) -> Any:
        return point, times, speed

    assert called(function, {"x": 1}, 2, speed=3) == (Point(1), 2, 3.0)
    with pytest.raises(BadArguments, match="argument 'times': Expected `int`, got `float`"):
        called(function, {"x": 1}, 2.0)


def test_every_kind_of_parameter() -> None:
    def function(a: Point, /, b: Point, *more: Color, c: Point, **others: Decimal) -> Any:
        return a, b, more, c, others

    point = {"x": 1}
    found = called(function, point, point, "red", "red", c=point, d="1.0", a="2")
    assert found == (Point(1), Point(1), (Color.RED, Color.RED), Point(1), {"d": Decimal("1.0"), "a": Decimal("2")})
    with pytest.raises(BadArguments, match="argument 'more'"):
        called(function, point, point, "blue", c=point)
    with pytest.raises(BadArguments, match="argument 'd'"):
        called(function, point, point, c=point, d=[])


def test_a_default_is_no_mismatch() -> None:
    def function(point: Any = None, until: Any = "now") -> Any:
        return point, until

    function.__annotations__.update(point=Point, until=datetime.date)
    assert called(function, None, "now") == (None, "now")
    assert called(function) == (None, "now")


def test_what_a_function_names_for_the_type_checker_only_is_not_converted() -> None:
    def function(a: Any, b: Point) -> Any:
        return a, b

    function.__annotations__["a"] = "Unknown"
    assert called(function, 1, {"x": 1}) == (1, Point(1))


def test_a_wrapper_takes_its_own_arguments() -> None:
    def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function("an arm", *args)

        return wrapper

    @injecting
    def function(arm: Arm, point: Point) -> Any:
        return arm, point

    assert converting("the.task", function) is function


def test_partials_and_objects_that_are_called() -> None:
    class Callee:
        def __call__(self, point: Point) -> Any:
            return point

    def function(a: int, point: Point) -> Any:
        return a, point

    assert called(functools.partial(function, 1), {"x": 1}) == (1, Point(1))
    assert called(Callee(), {"x": 1}) == Point(1)


def test_arguments_that_do_not_fit_the_signature_are_told_as_before() -> None:
    """A TypeError of the function itself is the task's own failure."""

    def function(point: Any) -> Any:
        return len(point)

    function.__annotations__["point"] = Point
    call = converting("the.task", function)

    def failure(*args: Any) -> Any:
        try:
            call(*args)
        except TypeError as error:
            return as_failure("the.task", error)

    assert type(failure()) is BadArguments
    assert type(failure(1, 2)) is BadArguments
    failed = failure({"x": 1})
    assert (failed.code, failed.type) == (1, "TypeError")
    assert "in __call__" not in failed.traceback
