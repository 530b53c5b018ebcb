"""Writes columns of Python values as frames of the contract.

Everything that depends only on the types of the columns is computed once, when a :class:`Writer` is created. The types
of all values of a column are checked at once (``{*map(type, values)}``). Individual values are checked only if a column
does not fit, to find the rows that fail, and to convert values of similar types.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Iterable, Sequence, Sized
from itertools import accumulate, chain
from struct import Struct, error, pack
from typing import Any

from ._frame import FORMATS, PADDING, Column, one_row
from ._types import Type
from ._values import EXACT, LISTS, SIMILAR, ZEROS, Mismatch, converter

_NONE = type(None)


class _Unfit(Exception):
    """A column has a value that needs a conversion, or is an error."""


_UNFIT = (_Unfit, OverflowError, UnicodeEncodeError, error)
"""The errors of writing a column whose values are not as expected."""

Slots = Callable[[Sequence[Any]], tuple[bytes, list[bytes]]]
"""A function of a column's values without nulls. Returns the slots and the parts of the tail, without padding."""


class Writer:
    """Writes frames with columns of the given names and types."""

    def __init__(self, fields: Sequence[tuple[str, Type, bool]], noun: str = "output") -> None:
        """``fields`` has the name, the type and the nullability of each column. Messages call a field ``noun``."""
        kinds = [kind for _, kind, _ in fields]
        self._columns = [_Column(kind, nullable) for _, kind, nullable in fields]
        self._converters = [(f"{noun} '{name}' ({kind})", converter(kind)) for name, kind, _ in fields]
        self._noun = noun
        # For rows whose values have the expected Python types.
        heads = Struct(one_row(kinds))
        self._pack_one = heads.pack
        self._exact: list[type] = [list if kind.is_list else EXACT[kind.scalar] for kind in kinds]
        self._tails = [(index, tail) for index, tail in enumerate(map(_one_tail, kinds)) if tail is not None]
        self._all_nullable = all(nullable for _, _, nullable in fields)
        self._zeros = [[] if kind.is_list else ZEROS[kind.scalar] for kind in kinds]
        # The presence and the slot of each column. Only the slots are replaced.
        self._present: list[Any] = [True, 0] * len(kinds)
        self._null_row = bytes(heads.size)

    def null_row(self) -> bytes:
        """Returns the frame of one row that is null in all columns."""
        return self._null_row

    def write_one(self, values: Sequence[Any]) -> tuple[bytes, dict[int, str]]:
        """Writes one row. Returns the frame, and the message of the row if it failed."""
        kinds = [*map(type, values)]
        heads, full = self._present, values
        if kinds != self._exact and _NONE in kinds and self._all_nullable:
            heads = [value is not None for value in values for _ in (0, 1)]
            full = [zero if value is None else value for zero, value in zip(self._zeros, values)]
            kinds = [*map(type, full)]
        if kinds == self._exact:
            try:
                heads[1::2] = full
                parts = [b""]
                for index, tail in self._tails:
                    heads[2 * index + 1], contents = tail(full[index])
                    for part in contents:
                        parts += (part, PADDING[-len(part) & 7])
                parts[0] = self._pack_one(*heads)
                return b"".join(parts), {}
            except _UNFIT:
                pass
        return self.write([(value,) for value in values], 1, ())

    def write(self, columns: Sequence[Column], rows: int, exempt: Container[int]) -> tuple[bytes, dict[int, str]]:
        """Writes columns with ``rows`` values each. Returns the frame, and the messages of the rows that failed.

        All columns are ``None`` in the rows of ``exempt``, which may be so even in columns that are not nullable.
        """
        try:
            return self._frame(columns, exempt), {}
        except _UNFIT:
            converted, failed = self._convert(columns, rows, exempt)
            return self._frame(converted, {*_listed(exempt, rows), *failed}), failed

    def _frame(self, columns: Sequence[Column], exempt: Container[int]) -> bytes:
        heads: list[bytes] = []
        tails: list[bytes] = []
        for column, values in zip(self._columns, columns):
            column.write(values, exempt, heads, tails)
        return b"".join(heads + tails)

    def _convert(
        self, columns: Sequence[Column], rows: int, exempt: Container[int]
    ) -> tuple[list[list[Any]], dict[int, str]]:
        """Converts values of similar types. In rows that fail, sets all columns to ``None``. Returns the messages."""
        converted: list[list[Any]] = []
        failed: dict[int, str] = {}
        for (name, convert), column, values in zip(self._converters, self._columns, columns):
            results: list[Any] = []
            for row, value in enumerate(values):
                result = None
                try:
                    if value is not None:
                        result = convert(value)
                    elif not column.nullable and row not in exempt:
                        raise Mismatch(f"got None, but the {self._noun} has nullable=False")
                except Mismatch as mismatch:
                    failed.setdefault(row, f"{name}: {mismatch}")
                results.append(result)
            converted.append(results)
        for results in converted:
            for row in failed:
                results[row] = None
        return converted, dict(sorted(failed.items()))


def _listed(exempt: Container[int], rows: int) -> list[int]:
    return [row for row in range(rows) if row in exempt]


class _Column:
    """Writes the columns of one type."""

    __slots__ = ("_expected", "_slots", "_zero", "nullable")

    def __init__(self, kind: Type, nullable: bool) -> None:
        self.nullable = nullable
        if kind.is_list:
            self._expected = LISTS | {_NONE}
            self._zero: Any = ()
            self._slots = _lists(kind)
        else:
            self._expected = SIMILAR[kind.scalar] | {_NONE}
            self._zero = ZEROS[kind.scalar]
            self._slots = _slots(kind.scalar)

    def write(self, values: Column, exempt: Container[int], heads: list[bytes], tails: list[bytes]) -> None:
        kinds = {*map(type, values)}
        if not kinds <= self._expected:
            raise _Unfit
        rows = len(values)
        if _NONE in kinds:
            if not self.nullable and any(value is None and row not in exempt for row, value in enumerate(values)):
                raise _Unfit
            heads.append(_presence(values))
            zero = self._zero
            values = [zero if value is None else value for value in values]
        else:
            heads.append(((1 << rows) - 1).to_bytes((rows + 63) // 64 * 8, "little"))
        slots, parts = self._slots(values)
        heads += (slots, PADDING[-len(slots) & 7])
        for part in parts:
            tails += (part, PADDING[-len(part) & 7])


def _presence(values: Sequence[object]) -> bytes:
    """Returns one bit per value, least significant bit first, which is 1 if the value is not ``None``."""
    bits = "".join(["0" if value is None else "1" for value in reversed(values)])
    return int(bits or "0", 2).to_bytes((len(values) + 63) // 64 * 8, "little")


def _ends(values: Sequence[Sized]) -> bytes:
    return array("I", accumulate(map(len, values))).tobytes()


# === Slots ===


def _slots(scalar: str) -> Slots:
    """Returns the function that writes the slots of values of a scalar type."""
    if scalar == "utf8":
        return _texts
    if scalar == "binary":
        return lambda values: (_ends(values), [b"".join(values)])
    if scalar == "bool":
        return lambda values: (bytes(values), [])
    form = FORMATS[scalar]
    # The native order, which is the same, is faster, but rounds numbers beyond the range of 32 bits to infinity.
    order = "<" if form == "f" else ""
    return lambda values: (pack(f"{order}{len(values)}{form}", *values), [])


def _one_tail(kind: Type) -> Callable[[Any], tuple[int, Iterable[bytes]]] | None:
    """Returns the function that writes a value with a tail, or ``None`` if columns of this type have no tail.

    The function returns the value's end, and the parts of the tail, without padding.
    """
    if kind.is_list:
        lists = _lists(kind)
        return lambda value: (len(value), lists([value])[1])
    if kind.scalar == "utf8":

        def text(value: str) -> tuple[int, Iterable[bytes]]:
            data = value.encode()
            return len(data), (data,)

        return text
    return (lambda value: (len(value), (value,))) if kind.scalar == "binary" else None


def _texts(values: Sequence[str]) -> tuple[bytes, list[bytes]]:
    text = "".join(values)
    data = text.encode()
    if len(data) == len(text):
        # In ASCII, one character is one byte.
        return _ends(values), [data]
    return _ends([value.encode() for value in values]), [data]


def _lists(kind: Type) -> Slots:
    expected = SIMILAR[kind.scalar] | ({_NONE} if kind.nullable_items else frozenset())
    write_items, zero, nullable_items = _slots(kind.scalar), ZEROS[kind.scalar], kind.nullable_items

    def lists(values: Sequence[Sequence[Any]]) -> tuple[bytes, list[bytes]]:
        items: Sequence[Any] = [*chain.from_iterable(values)]
        kinds = {*map(type, items)}
        if not kinds <= expected:
            raise _Unfit
        parts = []
        if nullable_items:
            parts.append(_presence(items))
            if _NONE in kinds:
                items = [zero if item is None else item for item in items]
        slots, tail = write_items(items)
        return _ends(values), [*parts, slots, *tail]

    return lists
