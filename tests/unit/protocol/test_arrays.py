"""Numpy arrays as values and as columns."""

from __future__ import annotations

import struct
import sys
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy
import pytest

from taskengine import _fastpath
from taskengine.broker.topics import TopicTable
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol import arrays

HAS_WIDE = numpy.dtype("longdouble") != numpy.dtype("float64")
"""On 32-bit ARM a long double is a double."""
ARRAYS = [
    numpy.arange(6, dtype="i2").reshape(2, 3),
    numpy.arange(6.0).reshape(2, 3)[:, ::2],
    numpy.array(5.5),
    numpy.zeros((0, 3), "f4"),
    numpy.array([True, False]),
    numpy.array([1 + 2j]),
    numpy.array(["a", "bcd"]),
    numpy.array([b"xy", b"z"]),
    numpy.array(["2020-02-02", "NaT"], "M8[D]"),
    numpy.arange(3, dtype=">i4"),
    numpy.ones((2, 2, 2), order="F"),
]


def there_and_back(value: Any) -> Any:
    return _fastpath.unpack(_fastpath.encode(value), 1, bytes)[0]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_an_array_arrives_as_it_was(array: Any) -> None:
    came = there_and_back({"image": [array]})["image"][0]
    assert (came.dtype, came.shape) == (array.dtype, array.shape)
    numpy.testing.assert_array_equal(came, array)
    assert came.flags.writeable


@pytest.mark.parametrize(
    ("scalar", "plain"), [(numpy.float64(1.5), 1.5), (numpy.int8(-3), -3), (numpy.True_, True), (numpy.str_("a"), "a")]
)
def test_a_scalar_arrives_as_a_plain_value(scalar: Any, plain: Any) -> None:
    came = there_and_back(scalar)
    assert (type(came), came) == (type(plain), plain)


@pytest.mark.parametrize("array", [numpy.array([object()]), numpy.zeros(2, "i4,f8"), numpy.zeros(2, "V3")])
def test_an_array_of_anything_else_is_refused(array: Any) -> None:
    with pytest.raises(BadArguments):
        _fastpath.encode(array)


MASKED = numpy.ma.array([1.5, 2.5], mask=[False, True])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (MASKED, "a masked array would lose its mask: send .filled"),
        ({"deep": [numpy.ma.array([1])]}, "a masked array"),
        (numpy.ma.masked, "a masked array"),
        (MASKED.reshape(2, 1)[0], "a masked array"),
        (numpy.longdouble(1), "is wider than Python's numbers: send float"),
        (numpy.clongdouble(1j), "is wider than Python's numbers"),
        (numpy.zeros(2, "i4,g")[0], "is wider than Python's numbers"),
        *([(numpy.array([1], wide), "differs from processor to processor") for wide in "gG"] if HAS_WIDE else ()),
        (numpy.datetime64(1, "ns"), "a numpy.datetime64[ns] like this has no equal in Python"),
        (numpy.datetime64("NaT"), "has no equal"),
        (numpy.timedelta64(1, "ns"), "has no equal"),
    ],
)
def test_what_would_lose_something_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(BadArguments) as caught:
        _fastpath.encode(value)
    assert said in str(caught.value)
    assert "recursion" not in str(caught.value)


def test_a_map_over_what_would_lose_something_is_refused_by_name() -> None:
    """Its rows were sent: None for what is masked, and ints for nanoseconds."""
    session = Session("x", "tcp://127.0.0.1:9000")
    values: Any
    for values, said in ((MASKED, "masked array"), (numpy.array([1, 2], "M8[ns]"), "has no equal")):
        for iterables in ([values], [values, [1, 2]]):
            with pytest.raises(BadArguments, match=said):
                session.mapped("t", iterables, Future(), Options())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (numpy.array(["2020-01-01T00:00:01", "NaT"], "M8[ns]"), ["2020-01-01T00:00:01.000000000", "NaT"]),
        (numpy.datetime64("2020-02-02"), "2020-02-02"),
        (numpy.array([b"ab"]), [b"ab"]),
        (numpy.array(2.5), 2.5),
    ],
)
def test_what_json_has_of_numpy(value: Any, told: Any) -> None:
    assert arrays.listed(value) == told


@pytest.mark.parametrize(
    "value",
    [MASKED, numpy.ma.masked, numpy.longdouble(1), numpy.array([1], "m8[ns]"), numpy.array(1, "m8[ns]")],
    ids=repr,
)
def test_what_would_lose_something_is_no_json(value: Any) -> None:
    with pytest.raises(TypeError, match=r"mask|wider|no equal"):
        msgspec.json.encode(value, enc_hook=arrays.listed)
    with pytest.raises(TypeError, match=r"mask|wider|no equal"):
        TopicTable("DATA-1").publish("x", value, now=0.0)


GOOD = b"\x03<f8" + struct.pack("<BQ", 1, 2) + bytes(16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x03<f",
        GOOD[:-1],
        GOOD + b"\0",
        b"\x02|O" + struct.pack("<BQ", 1, 1) + bytes(8),
        b"\x05f4,i4" + struct.pack("<BQ", 1, 1) + bytes(8),
        b"\x04<f16" + struct.pack("<BQ", 1, 1) + bytes(16),
        b"\x03<f9" + struct.pack("<BQ", 1, 1) + bytes(9),
        b"\x03<f8" + struct.pack("<BQ", 1, 2**63) + bytes(16),
        b"\x03<f8" + struct.pack("<BQQ", 2, 2**62, 8) + bytes(8),
        b"\x03<f8" + struct.pack("<BQQ", 2, 2**63, 0),
        b"\x03<f8" + struct.pack("<B", 255) + struct.pack("<255Q", *[1] * 255) + bytes(8),
        b"\x03\xff\xff8" + struct.pack("<BQ", 1, 1) + bytes(8),
        b"\x03|S0" + struct.pack("<BQ", 1, 5),
    ],
)
def test_bytes_that_are_no_array(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed array"):
        arrays.decoded(data)


def test_without_numpy_an_array_is_refused_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ProtocolError, match="pip install"):
        arrays.decoded(GOOD)
    assert arrays.columns([[1, 2]]) is None
    assert arrays.plain_rows([1, 2]) == [1, 2]


def test_columns() -> None:
    codes, body = arrays.columns([numpy.arange(3, dtype="u1"), numpy.array([0.5, 1.5], "f4")]) or (b"", b"")
    assert codes == b"if"
    assert body == struct.pack("<qqdd", 0, 1, 0.5, 1.5)
    assert _fastpath.check_columns(codes, len(body)) == 2


@pytest.mark.parametrize(
    "iterables",
    [
        [],
        [[1, 2]],
        [numpy.arange(2), [1, 2]],
        [numpy.ones((2, 2))],
        [numpy.array(5)],
        [numpy.array(["a"])],
        [numpy.array([True])],
        [numpy.array([2**64 - 1])],
        [numpy.array([1 + 2j])],
        *([[numpy.array([1.0], "longdouble")]] if HAS_WIDE else ()),
    ],
)
def test_what_is_no_columns_of_numbers_goes_row_by_row(iterables: list[Any]) -> None:
    assert arrays.columns(iterables) is None


def test_rows_of_arrays_are_plain_values_or_arrays() -> None:
    assert arrays.plain_rows(numpy.arange(3)) == [0, 1, 2]
    assert [row.tolist() for row in arrays.plain_rows(numpy.ones((2, 2)))] == [[1.0, 1.0], [1.0, 1.0]]
    assert arrays.plain_rows("ab") == "ab"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, 2.5], numpy.array([1.5, 2.5])),
        ([], None),
        ([1.5, None], None),
        ([1, 2], None),
        (["12345678"], None),
    ],
)
def test_results_are_an_array_where_all_are_alike(values: list[Any], expected: Any) -> None:
    body = b"".join(map(_fastpath.encode, values))
    found = arrays.results(body, len(values))
    if expected is None:
        assert found is None
    else:
        numpy.testing.assert_array_equal(found, expected)
    ints = arrays.results(b"\xd3" + (-5).to_bytes(8, signed=True), 1)
    assert ints is not None
    assert (ints.dtype, ints[0]) == (numpy.dtype("i8"), -5)


def test_json_holds_lists() -> None:
    assert arrays.listed(numpy.ones((1, 2))) == [[1.0, 1.0]]
    assert arrays.listed(numpy.int8(3)) == 3
    with pytest.raises(TypeError):
        arrays.listed(object())
