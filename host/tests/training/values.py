"""Compares values, bit by bit."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any

import pyarrow as pa

TYPES = {
    "Int64": pa.int64(),
    "Int32": pa.int32(),
    "Float64": pa.float64(),
    "Float32": pa.float32(),
    "Bool": pa.bool_(),
    "String": pa.string(),
    "Bytes": pa.binary(),
    "UnixTimestamp": pa.timestamp("us", "UTC"),
    "Array(Int64)": pa.list_(pa.int64()),
    "Array(Float64)": pa.list_(pa.float64()),
    "Array(Float32)": pa.list_(pa.float32()),
    "Array(String)": pa.list_(pa.string()),
    "Array(Bool)": pa.list_(pa.bool_()),
}
"""The Arrow type of each declared type in a training set."""
NULL_ITEMS = {
    "Array(Int64)": 0,
    "Array(Float64)": float("nan"),
    "Array(Float32)": float("nan"),
    "Array(String)": "",
    "Array(Bool)": False,
}
"""The value of a null item in a list of each type."""


def bits(value: Any) -> Any:
    """Returns a value that equals another one only if both have the same type and the same bits."""
    if isinstance(value, float):
        # All NaN are equal.
        return "NaN" if value != value else struct.pack("<d", value)
    if isinstance(value, list):
        return [bits(item) for item in value]
    return value


def served(declared: str, value: Any) -> Any:
    """Returns the value that Larder serves for a value in a file: in a scalar feature, null for NaN, and in a list, a
    default for a null item."""
    if isinstance(value, list):
        default = NULL_ITEMS[declared]
        return [default if item is None else item for item in value]
    return None if isinstance(value, float) and value != value else value


def column(array: pa.ChunkedArray) -> list[Any]:
    """Returns the bits of a column's values. Times are microseconds since 1970."""
    of = array.type
    if pa.types.is_timestamp(of):
        array = array.cast(pa.timestamp("us", of.tz)).cast(pa.int64())
    values = array.to_pylist()
    assert not any(isinstance(value, datetime) for value in values[:1]), of
    return [bits(value) for value in values]
