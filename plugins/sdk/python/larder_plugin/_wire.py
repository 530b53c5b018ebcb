"""The contract's types, for running a plugin outside a component.

A component uses classes with the same names and fields, which are generated from the contract. With the classes here,
a unit test runs the same code as a call of the host, including bitmaps and ends.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class VarBytes:
    """Texts or byte strings. Slot i is ``data[ends[i-1]:ends[i]]``."""

    ends: list[int]
    data: bytes


@dataclass(slots=True)
class Scalars_Bools:
    """Booleans: 0 or 1 per slot."""

    value: bytes


@dataclass(slots=True)
class Scalars_Int32s:
    """32-bit integers."""

    value: list[int]


@dataclass(slots=True)
class Scalars_Int64s:
    """64-bit integers."""

    value: list[int]


@dataclass(slots=True)
class Scalars_Float32s:
    """32-bit floats. Values are rounded to 32 bits."""

    value: list[float]

    def __post_init__(self) -> None:
        self.value = array("f", self.value).tolist()


@dataclass(slots=True)
class Scalars_Float64s:
    """64-bit floats."""

    value: list[float]


@dataclass(slots=True)
class Scalars_Strings:
    """UTF-8 text."""

    value: VarBytes


@dataclass(slots=True)
class Scalars_Binaries:
    """Byte strings."""

    value: VarBytes


@dataclass(slots=True)
class Scalars_Timestamps:
    """Microseconds since 1970 UTC."""

    value: list[int]


@dataclass(slots=True)
class Lists:
    """The items of slot i are ``items[ends[i-1]:ends[i]]``."""

    ends: list[int]
    items: Any


@dataclass(slots=True)
class Values_Scalars:
    """A value per slot."""

    value: Any


@dataclass(slots=True)
class Values_Lists:
    """A list per slot."""

    value: Lists


@dataclass(slots=True)
class Column:
    """Values, and a bitmap of the values that are present. The bitmap is ``None`` if all values are present."""

    values: Any
    validity: bytes | None
