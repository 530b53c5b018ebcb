"""The Python values of each scalar type, and conversions from values of similar types."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from struct import Struct
from typing import Any

from ._errors import shown
from ._types import Type


class Mismatch(Exception):
    """A value does not match the type of its column."""


EXACT: dict[str, type] = {
    "bool": bool,
    "int32": int,
    "int64": int,
    "float32": float,
    "float64": float,
    "utf8": str,
    "binary": bytes,
    "timestamp": int,
}
"""The Python type of the values of each scalar type."""

ZEROS: dict[str, Any] = {scalar: exact() for scalar, exact in EXACT.items()}
"""The value in the slot of a null."""

SIMILAR: dict[str, frozenset[type]] = {
    scalar: frozenset({float, int} if exact is float else {bytes, bytearray} if exact is bytes else {exact})
    for scalar, exact in EXACT.items()
}
"""The Python types whose values are written without an individual conversion."""

LISTS: frozenset[type] = frozenset({list, tuple, array, memoryview})
"""The Python types of lists."""

_FLOAT32 = Struct("<f")


def converter(kind: Type) -> Callable[[Any], Any]:
    """Returns the function that converts a value to the type of a column. It raises :class:`Mismatch` if it cannot."""
    convert = _CONVERTERS[kind.scalar]
    if not kind.is_list:
        return convert
    nullable_items = kind.nullable_items

    def convert_list(value: Any) -> list[Any]:
        if type(value) not in LISTS and not isinstance(value, (list, tuple)):
            raise Mismatch(f"expected a list, got {shown(value)}")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(None if item is None and nullable_items else convert(item))
            except Mismatch as mismatch:
                hint = ". hint: declare the type with nullable_items=True" if item is None else ""
                raise Mismatch(f"item {index}: {mismatch}{hint}") from None
        return items

    return convert_list


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise Mismatch(f"expected a float, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise Mismatch(f"too large for a float: {shown(value)}") from None


def _float32(value: Any) -> float:
    number = _float(value)
    try:
        _FLOAT32.pack(number)
    except OverflowError:
        raise Mismatch(f"too large for 32 bits: {shown(value)}. hint: declare it as Float64") from None
    return number


def _int(expected: str, bits: int) -> Callable[[Any], int]:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            hint = ""
            if isinstance(value, float):
                finite = math.isfinite(value)
                hint = ". hint: convert it with int() or round()" if finite else ". hint: return None for NaN and infinity"
            raise Mismatch(f"expected {expected}, got {shown(value)}{hint}")
        if not low <= value <= high:
            raise Mismatch(f"{shown(value)} is out of range, {low} to {high}")
        return int(value)

    return convert


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Mismatch(f"expected True or False, got {shown(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch(f"expected a str, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Mismatch(f"cannot be encoded as UTF-8: {shown(value)}") from None
    # `str(value)` of an enumeration's member is its name.
    return str.__str__(value)


def _binary(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise Mismatch(f"expected bytes, got {shown(value)}")
    return bytes(value)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int32": _int("an int", 32),
    "int64": _int("an int", 64),
    "float32": _float32,
    "float64": _float,
    "utf8": _text,
    "binary": _binary,
    "timestamp": _int("an int (microseconds since 1970)", 64),
}
