"""Python's values that MessagePack lacks: what each is written as, and read from. Pure.

A tuple, a set and a frozenset are extensions whose data is the array of their elements. Compiled code writes and reads
those itself, and asks here for all other types. Layouts of the others:

    INT        the number in two's complement, the highest byte first: ints beyond 64 bits
    COMPLEX    the real and the imaginary part, float64 each, the highest byte first
    DECIMAL    its text, as `str` gives it
    UUID       its 16 bytes
    DATETIME   ISO 8601 text without an offset; a time with an offset is MessagePack's own timestamp
    DATE, TIME ISO 8601 text; a time of day may have an offset
    TIMEDELTA  days (i32), seconds of the day (u32) and microseconds (u32), the highest byte first

An object of a program's own type travels as what it holds: a dataclass, an attrs object and a Struct as a map, an Enum
as its value.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import struct
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from taskengine.errors import ProtocolError
from taskengine.protocol import arrays
from taskengine.protocol.layouts import RESERVED_EXTS, ValueExt

PLAIN: Final = 256
"""Beside the codes of extensions: the value stands for a plain one of MessagePack's,"""
PACKED: Final = 257
"""and for these bytes, which are MessagePack already."""
Lowered = tuple[int, Any]

_COMPLEX: Final = struct.Struct(">dd")
_TIMEDELTA: Final = struct.Struct(">iII")
_DAY_S: Final = 86400
_SECOND_US: Final = 10**6
_UUID_BYTES: Final = 16
_INT64_LEAST, _UINT64_END = -(2**63), 2**64
_EXACT: Final = decimal.Context(traps=[decimal.InvalidOperation])
"""The context by which a text that is no number raises, whatever a task has set."""
_PLAIN_BASES: Final = (str, bytes, int, float, list, dict, tuple)
_PLAIN_TYPES: Final = frozenset({*_PLAIN_BASES, bool, type(None)})
_UNHASHABLE: Final = "what arrives for one of its elements cannot be in a set: send a list"
_encode = msgspec.msgpack.Encoder(enc_hook=arrays.encoded).encode


def lowered(value: Any) -> Lowered:
    """Return the code of the extension as which a value is written, with its data.

    The data are bytes, or the list of the elements of a tuple or a set. With the code PLAIN, the second part is a value
    of a plain type to write instead, and with PACKED bytes to write as they are. Raises TypeError, ValueError and
    OverflowError for a value that would not come back equal; the text says what to send instead.
    """
    lower = _LOWER.get(type(value))
    return lower(value) if lower is not None else _lower_other(value)


def decoded(code: int, data: bytes) -> Any:
    """Return the value in the data of an extension, neither a tuple's nor a set's. Raises ProtocolError."""
    read = _READ.get(code)
    if read is None:
        raise ProtocolError(f"extension {code} is not known here")
    try:
        return read(data)
    except (ValueError, OverflowError, decimal.InvalidOperation, struct.error) as error:
        raise ProtocolError(f"an extension {code} that cannot be read: {error}") from None


def is_hashable(value: Any) -> bool:
    """Return whether what arrives for a value can be in a set, or be the key of a map."""
    if isinstance(value, Enum):
        return is_hashable(value.value)
    if isinstance(value, tuple):
        return all(map(is_hashable, value))
    numpy = sys.modules.get("numpy")
    return isinstance(value, _HASHABLE) or (numpy is not None and isinstance(value, numpy.generic))


# ---- writing


def _lower_int(value: int) -> Lowered:
    if _INT64_LEAST <= value < _UINT64_END:
        return PACKED, _encode(value)
    return ValueExt.INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _lower_set(code: ValueExt) -> Callable[[set[Any] | frozenset[Any]], Lowered]:
    def lower(value: set[Any] | frozenset[Any]) -> Lowered:
        elements = list(value)
        if not all(map(is_hashable, elements)):
            raise TypeError(_UNHASHABLE)
        return code, elements

    return lower


def _lower_datetime(value: datetime.datetime) -> Lowered:
    if value.tzinfo is None:
        return ValueExt.DATETIME, value.isoformat().encode()
    return PACKED, _encode(value)


def _lower_timedelta(value: datetime.timedelta) -> Lowered:
    return ValueExt.TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _lower_ext(value: msgspec.msgpack.Ext) -> Lowered:
    if value.code in RESERVED_EXTS:
        raise TypeError(f"extensions {RESERVED_EXTS[0]} to {RESERVED_EXTS[-1]} are the engine's own: take another code")
    return PACKED, _encode(value)


_LOWER: Mapping[type, Callable[[Any], Lowered]] = {
    int: _lower_int,
    str: lambda value: (PACKED, _encode(value)),
    tuple: lambda value: (ValueExt.TUPLE, value),
    set: _lower_set(ValueExt.SET),
    frozenset: _lower_set(ValueExt.FROZENSET),
    complex: lambda value: (ValueExt.COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    decimal.Decimal: lambda value: (ValueExt.DECIMAL, str(value).encode()),
    UUID: lambda value: (ValueExt.UUID, value.bytes),
    datetime.datetime: _lower_datetime,
    datetime.date: lambda value: (ValueExt.DATE, value.isoformat().encode()),
    datetime.time: lambda value: (ValueExt.TIME, value.isoformat().encode()),
    datetime.timedelta: _lower_timedelta,
    bytearray: lambda value: (PLAIN, bytes(value)),
    memoryview: lambda value: (PLAIN, value.tobytes()),
    msgspec.msgpack.Ext: _lower_ext,
    msgspec.Raw: lambda value: (PACKED, _encode(value)),
}
_HASHABLE: Final = (
    *(str, bytes, int, float, type(None), complex, frozenset, decimal.Decimal, UUID),
    *(datetime.date, datetime.time, datetime.timedelta),
)


def _lower_other(value: Any) -> Lowered:
    if isinstance(value, Enum):
        return _plainly(value.value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plainly(arrays.encoded(value))
    if numpy is not None and isinstance(value, numpy.ndarray):
        return PACKED, _encode(value)
    if isinstance(value, msgspec.Struct):
        return PLAIN, _lower_struct(value)
    names = _field_names(value)
    if names is not None:
        held = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return PLAIN, {name: each for name, each in held.items() if each is not msgspec.UNSET}
    for base, make in _BASES:
        if isinstance(value, base):
            return _of_base(value, make(value))
    raise TypeError(f"it has no form here: {_advice(value)}")


def _plainly(value: Any) -> Lowered:
    """Return the lowered form of what stands for a value of another type."""
    return (PLAIN, value) if type(value) in _PLAIN_TYPES else lowered(value)


def _field_names(value: Any) -> list[str] | None:
    """Return the names of the fields of a dataclass or an attrs object; None for any other value."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else [field.name for field in attributes]


def _lower_struct(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    """Return what msgspec would write: under its encoded names, with its tag, or as a list."""
    config = value.__struct_config__
    held = [getattr(value, name) for name in value.__struct_fields__]
    if config.array_like:
        return [*([] if config.tag is None else [config.tag]), *held]
    tag = {} if config.tag is None else {str(config.tag_field): config.tag}
    pairs = zip(value.__struct_encode_fields__, held, strict=True)
    return tag | {name: each for name, each in pairs if each is not msgspec.UNSET}


def _of_base(value: Any, made: Any) -> Lowered:
    """Return the lowered form of an object of a subclass as one of its base. Raises TypeError where they differ."""
    is_nan = value != value
    if not (made == value or is_nan):
        raise TypeError(f"it would arrive as a {type(made).__name__}, which is not equal to it: send what it holds")
    return _plainly(made)


_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (bytes, bytes),
    (int, int.__int__),
    (float, float.__float__),
    (dict, dict),
    (list, list),
    (tuple, tuple),
    (set, set),
    (frozenset, frozenset),
    (complex, complex.__complex__),
    (decimal.Decimal, decimal.Decimal),
    (UUID, lambda value: UUID(int=value.int)),
    (datetime.datetime, lambda value: datetime.datetime.combine(value.date(), value.timetz())),
    (datetime.date, lambda value: datetime.date(value.year, value.month, value.day)),
    (datetime.timedelta, lambda value: datetime.timedelta(value.days, value.seconds, value.microseconds)),
    (bytearray, bytes),
)
"""The types whose subclasses are sent as they are themselves, if they are equal."""


def _advice(value: Any) -> str:
    """Return what to send instead of a value."""
    if isinstance(value, BaseException):
        return "raise it, or send str(…) of it"
    if hasattr(value, "__fspath__"):
        return "send str(…) of it"
    if isinstance(value, type):
        return "send its name"
    if hasattr(value, "__iter__"):
        return "send list(…) of it"
    if hasattr(value, "__qualname__"):
        return "send its name"
    return "send what it holds, or a dataclass"


# ---- reading


def _read_int(data: bytes) -> int:
    if not data:
        raise ValueError("an int has at least one byte")
    return int.from_bytes(data, "big", signed=True)


def _read_uuid(data: bytes) -> UUID:
    if len(data) != _UUID_BYTES:
        raise ValueError(f"a UUID has {_UUID_BYTES} bytes, not {len(data)}")
    return UUID(bytes=data)


def _read_datetime(data: bytes) -> datetime.datetime:
    value = datetime.datetime.fromisoformat(data.decode("ascii"))
    if value.tzinfo is not None:
        raise ValueError("a time with an offset is a timestamp, extension -1")
    return value


def _read_timedelta(data: bytes) -> datetime.timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    if seconds >= _DAY_S or microseconds >= _SECOND_US:
        raise ValueError("the seconds of a day are below 86400, and microseconds below 1000000")
    return datetime.timedelta(days, seconds, microseconds)


_READ: Mapping[int, Callable[[bytes], Any]] = {
    ValueExt.INT: _read_int,
    ValueExt.COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
    ValueExt.DECIMAL: lambda data: decimal.Decimal(data.decode("ascii"), _EXACT),
    ValueExt.UUID: _read_uuid,
    ValueExt.DATETIME: _read_datetime,
    ValueExt.DATE: lambda data: datetime.date.fromisoformat(data.decode("ascii")),
    ValueExt.TIME: lambda data: datetime.time.fromisoformat(data.decode("ascii")),
    ValueExt.TIMEDELTA: _read_timedelta,
}
