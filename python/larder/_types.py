"""Converts values to the Python types that Feast's client returns.

The names of types are those of Larder's definitions, such as `Int64`, `Array(Float32)` or `Set(String)`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Optional
from uuid import UUID

# Converts one value that is not null.
Convert = Callable[[Any], Any]
# Converts the values of a column. None stands for floats, whose special values are text in JSON.
Decoder = Optional[Callable[[list[Any]], list[Any]]]

# Feast's placeholder for a null timestamp, in seconds.
NULL_SECONDS = -(2**63)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
FLOATS = ("Float32", "Float64")
INTEGERS = ("Int32", "Int64")
BYTES = ("Bytes", "PdfBytes", "ImageBytes")
TEXTS = ("Json", "Uuid", "TimeUuid", "Decimal")


def _of_seconds(seconds: int) -> datetime | int | None:
    """Converts seconds since 1970. A time beyond the range of Python's times stays a number of seconds."""
    if seconds == NULL_SECONDS:
        return None
    try:
        return EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return seconds


def of_micros(micros: int) -> datetime | int:
    """Converts microseconds since 1970. A time beyond the range of Python's times becomes a number of seconds."""
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros // 1_000_000


def _document(text: str) -> Any:
    """Parses a JSON document. As in Feast, text that is not JSON is returned as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _uuid(text: str) -> UUID | str:
    """Parses a UUID. Lists have empty texts for nulls, which Feast's client cannot read. They are returned as they are."""
    return UUID(text) if text else text


def _decimal(text: str) -> Decimal | str:
    """Parses a decimal. Lists have empty texts for nulls, as lists of UUIDs do."""
    return Decimal(text) if text else text


def _float(value: float | str) -> float:
    return float(value)


# The conversions of scalars from JSON and from Arrow. Other scalars need none.
_FROM_JSON: dict[str, Convert] = {
    **dict.fromkeys(FLOATS, _float),
    **dict.fromkeys(BYTES, base64.b64decode),
    "UnixTimestamp": _of_seconds,
    "Json": _document,
    "Uuid": _uuid,
    "TimeUuid": _uuid,
    "Decimal": _decimal,
}
_FROM_ARROW: dict[str, Convert] = {
    "UnixTimestamp": of_micros,
    "Json": _document,
    "Uuid": _uuid,
    "TimeUuid": _uuid,
    "Decimal": _decimal,
}


def item_type(type_name: str) -> tuple[str, str] | None:
    """Splits the name of a list or a set, such as `Array(Int64)`, into the kind and the type of the items."""
    kind, opening, rest = type_name.partition("(")
    return (kind, rest[:-1]) if opening and rest.endswith(")") and kind in ("Array", "Set") else None


def _scalar(type_name: str) -> str:
    """Returns the type of the items of a list or a set, and otherwise the type itself."""
    split = item_type(type_name)
    return split[1] if split else type_name


def is_nested(type_name: str) -> bool:
    """Returns whether values of the type are nested: maps, structs, and lists of lists or of maps."""
    return _scalar(type_name) not in (*_FROM_JSON, *INTEGERS, "Bool", "String")


def has_texts(type_name: str) -> bool:
    """Returns whether values of the type are text in Arrow, but other objects in Python."""
    return is_nested(type_name) or _scalar(type_name) in TEXTS


def _converter(type_name: str, scalars: dict[str, Convert]) -> Convert | None:
    split = item_type(type_name)
    if split is None:
        return scalars.get(type_name)
    kind, items = split
    convert = scalars.get(items)
    if kind == "Set":
        return set if convert is None else lambda value: {None if item is None else convert(item) for item in value}
    return None if convert is None else lambda value: [None if item is None else convert(item) for item in value]


def _of_columns(convert: Convert) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [None if value is None else convert(value) for value in values]


def json_decoder(type_name: str) -> tuple[bool, Decoder]:
    """Returns whether the values of a column in a JSON response are converted, and how."""
    if type_name in FLOATS:
        return True, None
    convert = None if is_nested(type_name) else _converter(type_name, _FROM_JSON)
    return (False, None) if convert is None else (True, _of_columns(convert))


def arrow_decoder(type_name: str) -> Decoder:
    """Returns how the values of a column in an Arrow response are converted, or None if they are not."""
    convert = _document if is_nested(type_name) else _converter(type_name, _FROM_ARROW)
    return None if convert is None else _of_columns(convert)


def arrow_type(pyarrow: Any, type_name: str) -> Any:
    """Returns the type of a column in `pyarrow`, as in the server's Arrow responses."""
    split = item_type(type_name)
    if is_nested(type_name):
        return pyarrow.string()
    if split is not None:
        return pyarrow.list_(arrow_type(pyarrow, split[1]))
    names = {"Float32": "float32", "Float64": "float64", "Int32": "int32", "Int64": "int64", "Bool": "bool_"}
    if type_name == "UnixTimestamp":
        return pyarrow.timestamp("us", "UTC")
    if type_name in BYTES:
        return pyarrow.binary()
    return getattr(pyarrow, names.get(type_name, "string"))()


def arrow_value(type_name: str, value: Any) -> Any:
    """Converts a Python value for a column of `arrow_type`. The type must not be one of `has_texts`."""
    if value is None:
        return None
    split = item_type(type_name)
    if split is not None:
        items = sorted(value) if isinstance(value, set) else value
        return [arrow_value(split[1], item) for item in items]
    if type_name == "UnixTimestamp":
        # A time beyond the range of Python's times is a number of seconds.
        return value * 1_000_000 if isinstance(value, int) else (value - EPOCH) // timedelta(microseconds=1)
    return value
