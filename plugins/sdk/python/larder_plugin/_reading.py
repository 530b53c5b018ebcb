"""Reads frames of the contract into columns of Python values.

Everything that depends only on the types of the columns is computed once: the functions here return functions, which
run on every call. The numbers of a column are converted by one call of ``tolist``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from ._frame import FORMATS, SIZES, one_row, slot_format
from ._types import Type

Tail = Callable[[memoryview, int, list[int]], tuple[list[Any], int]]
"""A function of a frame, the position of a tail, and the ends of the rows. Returns the rows, and the position after
the tail."""

# A memoryview without bytes cannot be cast to another format.
_EMPTY = {form: memoryview(bytes(8)).cast(form)[:0] for form in SIZES}  # type: ignore[call-overload]


def one_row_reader(kinds: Sequence[Type]) -> Callable[[bytes], Sequence[Any]]:
    """Returns the function that reads a frame of one row. It returns a value for each column.

    Most requests are for one entity. Without lists, this takes a third of the time of :func:`rows_reader`.
    """
    heads = Struct(one_row(kinds))
    unpack, size = heads.unpack_from, heads.size
    tails = [(index, tail) for index, tail in enumerate(map(_tail, kinds)) if tail is not None]

    def read(frame: bytes) -> Sequence[Any]:
        slots = unpack(frame)
        values: Any = slots[1::2]
        at = size
        if tails:
            values = list(values)
            view = memoryview(frame)
            for index, tail in tails:
                (values[index],), at = tail(view, at, [values[index]])
        if len(frame) != at:
            raise _wrong_size(frame, at)
        presence = slots[::2]
        if False in presence:
            return [value if present else None for value, present in zip(values, presence)]
        return values  # type: ignore[no-any-return]

    return read


def rows_reader(kinds: Sequence[Type]) -> Callable[[bytes, int], list[list[Any]]]:
    """Returns the function that reads a frame with a number of rows. It returns a list for each column."""
    heads = [(form, SIZES[form], _tail(kind)) for kind, form in zip(kinds, map(slot_format, kinds))]

    def read(frame: bytes, rows: int) -> list[list[Any]]:
        if not rows:
            return [[] for _ in heads]
        view = memoryview(frame)
        words = (rows + 63) // 64 * 8
        full = ((1 << rows) - 1).to_bytes(words, "little")
        columns: list[list[Any]] = []
        absent: list[tuple[int, bytes]] = []
        tails: list[tuple[int, Tail]] = []
        at = 0
        for index, (form, size, tail) in enumerate(heads):
            presence = frame[at : at + words]
            if presence != full:
                absent.append((index, presence))
            at += words
            end = at + rows * size
            columns.append(view[at:end].cast(form).tolist())  # type: ignore[call-overload]
            at = end + (-end & 7)
            if tail is not None:
                tails.append((index, tail))
        for index, tail in tails:
            columns[index], at = tail(view, at, columns[index])
        if len(frame) != at:
            raise _wrong_size(frame, at)
        for index, presence in absent:
            _set_nulls(columns[index], presence)
        return columns

    return read


def _wrong_size(frame: bytes, end: int) -> ValueError:
    return ValueError(f"the frame has {len(frame)} bytes, but its columns have {end}")


def _set_nulls(values: list[Any], presence: bytes) -> None:
    """Sets the values whose bit is 0 to ``None``."""
    # An additional bit above the last row keeps leading zeros. The slice removes this bit and Python's prefix 0b.
    bits = bin(int.from_bytes(presence, "little") | 1 << len(values))[:2:-1]
    index = bits.find("0")
    while index >= 0:
        values[index] = None
        index = bits.find("0", index + 1)


# === Tails ===


def _tail(kind: Type) -> Tail | None:
    """Returns the function that reads the tail of a column, or ``None`` if columns of this type have no tail."""
    fixed = FORMATS.get(kind.scalar)
    if not kind.is_list:
        return None if fixed else _texts if kind.scalar == "utf8" else _binaries
    if fixed is None:
        return _lists_of_texts(_texts if kind.scalar == "utf8" else _binaries, kind.nullable_items)
    return _lists_of_values(fixed, kind.nullable_items)


def _slices(data: Any, ends: list[int]) -> list[Any]:
    start, parts = 0, []
    for end in ends:
        parts.append(data[start:end])
        start = end
    return parts


def _binaries(view: memoryview, at: int, ends: list[int]) -> tuple[list[Any], int]:
    end = at + (ends[-1] if ends else 0)
    return _slices(bytes(view[at:end]), ends), end + (-end & 7)


def _texts(view: memoryview, at: int, ends: list[int]) -> tuple[list[Any], int]:
    end = at + (ends[-1] if ends else 0)
    data = bytes(view[at:end])
    after = end + (-end & 7)
    # In ASCII, one byte is one character, so the ends of the bytes are also the ends in the text.
    if data.isascii() or len(ends) == 1:
        text = data.decode()
        return [text] if len(ends) == 1 else _slices(text, ends), after
    return [part.decode() for part in _slices(data, ends)], after


def _items_presence(view: memoryview, at: int, count: int) -> tuple[bytes, int]:
    end = at + (count + 63) // 64 * 8
    return bytes(view[at:end]), end


def _values(view: memoryview, at: int, count: int, form: str) -> tuple[memoryview, int]:
    end = at + count * SIZES[form]
    items = view[at:end].cast(form) if count else _EMPTY[form]  # type: ignore[call-overload]
    return items, end + (-end & 7)


def _lists_of_values(form: str, nullable_items: bool) -> Tail:
    def plain(view: memoryview, at: int, ends: list[int]) -> tuple[list[Any], int]:
        items, at = _values(view, at, ends[-1], form)
        return _slices(items, ends), at

    def nullable(view: memoryview, at: int, ends: list[int]) -> tuple[list[Any], int]:
        presence, at = _items_presence(view, at, ends[-1])
        packed, at = _values(view, at, ends[-1], form)
        items = packed.tolist()
        _set_nulls(items, presence)
        return _slices(items, ends), at

    return nullable if nullable_items else plain


def _lists_of_texts(read_items: Tail, nullable_items: bool) -> Tail:
    def lists(view: memoryview, at: int, ends: list[int]) -> tuple[list[Any], int]:
        count = ends[-1]
        presence = None
        if nullable_items:
            presence, at = _items_presence(view, at, count)
        item_ends, at = _values(view, at, count, "I")
        items, at = read_items(view, at, item_ends.tolist())
        if presence is not None:
            _set_nulls(items, presence)
        return _slices(items, ends), at

    return lists
