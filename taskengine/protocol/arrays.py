"""Numpy arrays on the wire. Numpy is imported when the first array comes, so that programs without it pay nothing.

As a value an array is an extension ARRAY_EXT: a byte with the length of the dtype, the dtype as in numpy's array
interface, a byte with the number of dimensions, each as a u64, and the elements in C order.

As columns of a package, `map` over arrays: the codes, a byte for each argument (`f` a column of float64, `i` of int64),
and the columns end to end. Their results are read as an array where all are floats, or all are ints.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec

from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol.layouts import ARRAY_EXT

if TYPE_CHECKING:
    import numpy

# what numpy's array interface allows without Python objects or fields in it, and means the same on every processor
_DTYPE = re.compile(r"[<>|](?:f[248]|c8|c16|[biuSU][1-9]\d{0,8})|[<>][Mm]8(\[\d*[A-Za-z]{1,2}\])?")
_TIMES = "Mm"
_FLOAT64_TAG, _INT64_TAG = 0xCB, 0xD3


def encoded(value: Any) -> Any:
    """Convert a value of numpy's to one that msgspec can write.

    Raises TypeError for any other value, and for values that would lose something: arrays of objects or with a mask.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plain(value)
    if numpy is None or not isinstance(value, numpy.ndarray):
        hint = "; write the task as `async def`, and await it there" if isinstance(value, CoroutineType) else ""
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported{hint}")
    _check_unmasked(value)
    dtype = value.dtype.str
    if not _DTYPE.fullmatch(dtype):
        wide = ", which differs from processor to processor: send .astype(…) of it" if value.dtype.kind in "fc" else ""
        raise TypeError(f"an array of {value.dtype} cannot be sent{wide}")
    data = bytearray(bytes([len(dtype)]) + dtype.encode())
    data += struct.pack(f"<B{value.ndim}Q", value.ndim, *value.shape)
    data += numpy.ascontiguousarray(value).reshape(-1).view("u1").data if value.size else b""
    return msgspec.msgpack.Ext(ARRAY_EXT, data)


def _plain(value: Any) -> Any:
    """Convert a scalar of numpy's to Python's. Raises TypeError if Python has none that is equal."""
    item = value.item()
    kind = value.dtype.kind
    if kind in _TIMES and (item is None or isinstance(item, int)):
        raise TypeError(f"a numpy.{value.dtype} like this has no equal in Python: send it in an array, or in µs")
    if type(item) is type(value):
        raise TypeError(f"a numpy.{value.dtype} is wider than Python's numbers: send float(…) or complex(…) of it")
    return item


def _check_unmasked(value: Any) -> None:
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise TypeError("a masked array would lose its mask: send .filled(…) of it, or its .data and its .mask")


def listed(value: Any) -> Any:
    """Convert a value of numpy's for JSON: numbers, text and lists. Raises TypeError for any other value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.generic, numpy.ndarray)):
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    _check_unmasked(value)
    if value.dtype.kind == "M":
        return numpy.datetime_as_string(value).tolist()
    if isinstance(value, numpy.generic) or not value.ndim:
        return _plain(value[()])
    return list(value) if value.dtype.kind == "m" else value.tolist()


def decoded(data: bytes) -> numpy.ndarray:
    """Decode an extension ARRAY_EXT into a writable array. Raises ProtocolError."""
    try:
        import numpy
    except ImportError:
        raise ProtocolError("an array came, and numpy is missing here: pip install numpy") from None
    try:
        end = 1 + data[0]
        dtype = data[1:end].decode("ascii")
        dimensions = data[end]
        shape = struct.unpack_from(f"<{dimensions}Q", data, end + 1)
        if not _DTYPE.fullmatch(dtype):
            raise ValueError(f"of dtype {dtype!r}")
        elements = bytearray(memoryview(data)[end + 1 + 8 * dimensions :])
        if math.prod(shape) * numpy.dtype(dtype).itemsize != len(elements):
            raise ValueError(f"of shape {shape} in {len(elements)} bytes")
        return numpy.frombuffer(elements, dtype).reshape(shape) if elements else numpy.empty(shape, dtype)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError, TypeError, MemoryError) as error:
        raise ProtocolError(f"malformed array: {error}") from None


def columns(iterables: Sequence[Any]) -> tuple[bytes, bytes] | None:
    """Return the (codes, body) of columns; None unless all are one-dimensional arrays of numbers of at most 64 bits.

    Raises BadArguments for a masked array.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not iterables:
        return None
    for values in iterables:
        try:
            _check_unmasked(values)
        except TypeError as error:
            raise BadArguments(str(error)) from None
    if not all(isinstance(values, numpy.ndarray) for values in iterables):
        return None
    codes = b""
    parts = []
    rows = min(len(values) if values.ndim else 0 for values in iterables)
    for values in iterables:
        code = {"f": b"f", "i": b"i", "u": b"i"}.get(values.dtype.kind)
        too_wide = values.dtype.itemsize > 8 or values.dtype == numpy.uint64
        if code is None or too_wide or values.ndim != 1:
            return None
        codes += code
        parts.append(values[:rows].astype(f"<{code.decode()}8").tobytes())
    return codes, b"".join(parts)


def plain_rows(values: Any) -> Any:
    """Return an array as a list of plain values, or of the arrays in its rows; return any other value unchanged."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(values, numpy.ndarray):
        return values
    return values.tolist() if values.ndim == 1 and values.dtype.kind not in _TIMES else list(values)


def results(body: bytes, count: int) -> numpy.ndarray | None:
    """Return the results as an array; None unless all are floats of 64 bits, or all are ints written with 64 bits."""
    import numpy

    if len(body) != 9 * count or not count:
        return None
    tag = body[0]
    if tag not in (_FLOAT64_TAG, _INT64_TAG):
        return None
    values = numpy.frombuffer(body, [("tag", "u1"), ("value", ">f8" if tag == _FLOAT64_TAG else ">i8")])
    if not (values["tag"] == tag).all():
        return None
    return values["value"].astype("f8" if tag == _FLOAT64_TAG else "i8")
