"""The parts of the contract's frames that reading and writing have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._types import Type

Column = Sequence[Any]
"""A value or ``None`` for each row."""

PADDING = [bytes(count) for count in range(8)]
"""The zeros that fill up a part to a multiple of 8 bytes, by their number."""

FORMATS = {"bool": "?", "int32": "i", "int64": "q", "float32": "f", "float64": "d", "timestamp": "q"}
"""The format of a value in ``struct`` and ``memoryview``, by the scalar types whose values have a fixed size."""
SIZES = {"?": 1, "i": 4, "I": 4, "q": 8, "f": 4, "d": 8}
"""The size of a value in bytes, by its format."""


def slot_format(kind: Type) -> str:
    """Returns the format of a row's slot: a value, or the end of the row's text, bytes or list."""
    return "I" if kind.is_list else FORMATS.get(kind.scalar, "I")


def one_row(kinds: Sequence[Type]) -> str:
    """Returns the format of the heads of a frame of one row: a presence and a slot for each column."""
    return "<" + "".join(f"?7x{slot}{8 - SIZES[slot]}x" for slot in map(slot_format, kinds))
