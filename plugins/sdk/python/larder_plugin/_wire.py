"""The contract's types, for running a plugin outside of a component.

In a component the classes that are generated from the contract stand in their place: same names, same fields. They are
written out here so that a unit test goes the whole way that a call of the host goes, bitmaps and offsets included.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class VarBytes:
    """Slot i is ``data[ends[i-1]:ends[i]]``."""

    ends: list[int]
    data: bytes


@dataclass(slots=True)
class Scalars_Bools:
    """0 or 1 per slot."""

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
    """Singles: what crosses the boundary is rounded to them."""

    value: list[float]

    def __post_init__(self) -> None:
        self.value = array("f", self.value).tolist()


@dataclass(slots=True)
class Scalars_Float64s:
    """Doubles."""

    value: list[float]


@dataclass(slots=True)
class Scalars_Strings:
    """UTF-8."""

    value: VarBytes


@dataclass(slots=True)
class Scalars_Binaries:
    """Any bytes."""

    value: VarBytes


@dataclass(slots=True)
class Scalars_Timestamps:
    """Microseconds since 1970."""

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
    """Values, and a bitmap of those that are there, unless all are."""

    values: Any
    validity: bytes | None
