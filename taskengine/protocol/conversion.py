"""Converts plain values to the types that a program names: arguments to annotations, results to `returns`. Pure.

msgspec does it, in its strict mode: an int where a float is wanted is converted, and text where a time, a Decimal, a
UUID or a path is; other types that differ are errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import Any, Final, get_args

import msgspec

Convert = Callable[[Any], Any]
NATIVE: Final = (bytes, bytearray, memoryview)
"""Types that values have of themselves: text is no Base64 of them."""


def converter(kind: Any) -> Convert | None:
    """Return what converts a value to a type; None if that is not possible, as for a union of two dataclasses.

    What it returns raises TypeError, ValueError or RecursionError for a value that does not fit.
    """

    def convert(value: Any) -> Any:
        return msgspec.convert(value, kind, dec_hook=_custom, builtin_types=NATIVE)

    try:
        convert(None)
    except (msgspec.ValidationError, ValueError):
        return convert
    except Exception:  # whatever a type raises that is not made for this
        return _enum_converter(kind)
    return convert


def _enum_converter(kind: Any) -> Convert | None:
    """Return a converter to an Enum whose values are neither all ints nor all text, or to such a one or None."""
    kinds = [each for each in get_args(kind) or (kind,) if each is not NoneType]
    if len(kinds) != 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], Enum)):
        return None
    [enum] = kinds

    def convert(value: Any) -> Any:
        return None if value is None and kind is not enum else enum(value)

    return convert


def _custom(kind: Any, value: Any) -> Any:
    """Return the value as a type that msgspec does not know, if it can be such; msgspec checks what is returned."""
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    numpy = sys.modules.get("numpy")
    if numpy is None or not (isinstance(kind, type) and issubclass(kind, numpy.generic)):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, complex)):
        return value
    # numbers of numpy arrive as Python's
    scalar = numpy.asarray(value)[()]
    return scalar if isinstance(scalar, kind) else kind(value)
