"""Columns of the contract to Python lists with ``None``, and back.

What can be known of a column is worked out once, when the plugin is declared: :func:`reader` and :func:`writer` return
a function for one input or output. These functions run on every call, so they look at all values of a column at once
(``set(map(type, values))``), and at one value at a time only to say what is wrong with it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

from ._errors import BadInput, Fault, Internal, shown
from ._types import Type

Values = list[Any]
"""A value or ``None`` per row."""
Wire = Any
"""The module with the contract's classes: generated, or :mod:`larder_plugin._wire`."""


class _Misfit(Exception):
    """The value at a place is not of the type."""

    def __init__(self, place: int, problem: str) -> None:
        self.place = place
        self.problem = problem


# === Bitmaps ===


def pack(values: Sequence[object]) -> bytes:
    """The bitmap of the values that are there, least significant bit first."""
    bits = "".join(["0" if value is None else "1" for value in reversed(values)])
    return int(bits, 2).to_bytes((len(values) + 7) // 8, "little")


def unpack(validity: bytes, rows: int) -> str:
    """A bitmap as one character per row, ``1`` for those that are there."""
    # The bit above the last row keeps the leading zeros; it and Python's 0b are cut off.
    return bin(int.from_bytes(validity, "little") | 1 << rows)[:2:-1]


# === Scalars ===


def _slices(var: Any) -> list[bytes]:
    data, start, slots = var.data, 0, []
    for end in var.ends:
        slots.append(data[start:end])
        start = end
    return slots


def _texts(var: Any) -> list[str]:
    data = var.data
    if len(var.ends) == 1:
        return [data.decode()]
    if not data.isascii():
        return [slot.decode() for slot in _slices(var)]
    # One byte is one character, so the text is cut where the bytes would be.
    text, start, slots = data.decode(), 0, []
    for end in var.ends:
        slots.append(text[start:end])
        start = end
    return slots


def _floats(values: Values, kinds: set[type]) -> Values:
    if kinds == {int} or kinds == {int, float}:
        try:
            return [float(value) for value in values]
        except OverflowError:
            pass
    floats = []
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (float, int)):
            raise _Misfit(place, f"a float is wanted, got {shown(value)}")
        try:
            floats.append(float(value))
        except OverflowError:
            raise _Misfit(place, f"too large for a float: {shown(value)}") from None
    return floats


def _ints(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            hint = "; int() or round() makes one of it" if isinstance(value, float) else ""
            raise _Misfit(place, f"an int is wanted, got {shown(value)}{hint}")
    return [int(value) for value in values]


def _instants(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise _Misfit(place, f"an int of microseconds since 1970 is wanted, got {shown(value)}")
    return [int(value) for value in values]


def _bools(values: Values, kinds: set[type]) -> Values:
    place = next(place for place, value in enumerate(values) if not isinstance(value, bool))
    raise _Misfit(place, f"True or False is wanted, got {shown(values[place])}")


def _strings(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise _Misfit(place, f"a str is wanted, got {shown(value)}")
    return [str(value) for value in values]


def _binaries(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise _Misfit(place, f"bytes are wanted, got {shown(value)}")
    return [bytes(value) for value in values]


class _Scalar:
    """How values of one scalar type are read, checked and written."""

    __slots__ = ("case", "convert", "decode", "exact", "limits", "zero")

    def __init__(
        self,
        case: str,
        exact: type,
        zero: object,
        convert: Callable[[Values, set[type]], Values],
        *,
        decode: Callable[[Any], Values] | None = None,
        bits: int | None = None,
    ) -> None:
        self.case = case
        self.exact = {exact}
        self.zero = zero
        self.convert = convert
        self.decode = decode
        self.limits = None if bits is None else (-(1 << bits - 1), (1 << bits - 1) - 1)

    def admit(self, values: Values, kinds: set[type]) -> Values:
        """The values, of these types, each of exactly the scalar's; `_Misfit` where one is not. None is ``None``."""
        if kinds and kinds != self.exact:
            values = self.convert(values, kinds)
        if self.limits is not None and values:
            low, high = self.limits
            if min(values) < low or max(values) > high:
                place = next(place for place, value in enumerate(values) if not low <= value <= high)
                raise _Misfit(place, f"{values[place]} is out of range, {low} to {high}")
        return values

    def encoder(self, wire: Wire) -> Callable[[Values], Any]:
        """Admitted values to the contract's scalars."""
        make = getattr(wire, self.case)
        if self.case == "Scalars_Bools":
            return lambda values: make(bytes(values))
        if self.case == "Scalars_Binaries":
            return lambda values: make(wire.VarBytes([*accumulate(map(len, values))], b"".join(values)))
        if self.case == "Scalars_Strings":

            def encode(values: Values) -> Any:
                text = "".join(values)
                if text.isascii():
                    return make(wire.VarBytes([*accumulate(map(len, values))], text.encode()))
                try:
                    slots = [value.encode() for value in values]
                except UnicodeEncodeError:
                    place = next(place for place, value in enumerate(values) if not _is_utf8(value))
                    raise _Misfit(place, f"no text that UTF-8 can hold: {shown(values[place])}") from None
                return make(wire.VarBytes([*accumulate(map(len, slots))], b"".join(slots)))

            return encode
        return make


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_SCALARS = {
    "bool": _Scalar("Scalars_Bools", bool, False, _bools, decode=lambda data: [byte == 1 for byte in data]),
    "int32": _Scalar("Scalars_Int32s", int, 0, _ints, bits=32),
    "int64": _Scalar("Scalars_Int64s", int, 0, _ints, bits=64),
    "float32": _Scalar("Scalars_Float32s", float, 0.0, _floats),
    "float64": _Scalar("Scalars_Float64s", float, 0.0, _floats),
    "utf8": _Scalar("Scalars_Strings", str, "", _strings, decode=_texts),
    "binary": _Scalar("Scalars_Binaries", bytes, b"", _binaries, decode=_slices),
    "timestamp": _Scalar("Scalars_Timestamps", int, 0, _instants, bits=64),
}


# === Reading ===


def reader(name: str, kind: Type, wire: Wire) -> Callable[[Any, int], Values]:
    """The function that makes a list of an input's column; `BadInput` where the column is of another type."""
    scalar = _SCALARS[kind.scalar]
    expected = getattr(wire, scalar.case)
    decode = scalar.decode
    is_list = kind.is_list

    def read(column: Any, rows: int) -> Values:
        values = column.values.value
        scalars = values.items if is_list and type(values) is wire.Lists else values
        if type(scalars) is not expected or is_list == (scalars is values):
            raise BadInput(f"input '{name}': {kind} is declared, the host sent {_sent(values, wire)}")
        slots = scalars.value if decode is None else decode(scalars.value)
        if is_list:
            start, lists = 0, []
            for end in values.ends:
                lists.append(slots[start:end])
                start = end
            slots = lists
        if len(slots) != rows:
            raise BadInput(f"input '{name}': the host sent {len(slots)} values for {rows} rows")
        if column.validity is None:
            return slots
        present = unpack(column.validity, rows)
        return [slot if bit == "1" else None for slot, bit in zip(slots, present)]

    return read


def _sent(values: Any, wire: Wire) -> str:
    """The type of a column that came, in the contract's words."""
    if type(values) is wire.Lists:
        return f"lists of {type(values.items).__name__.removeprefix('Scalars_').lower()}"
    return type(values).__name__.removeprefix("Scalars_").lower()


# === Writing ===

_NONE = type(None)
_LISTS = {list, tuple}


def writer(
    name: str, kind: Type, wire: Wire, *, nullable: bool, noun: str = "output", error: type[Fault] = Internal
) -> Callable[[Values, int], Any]:
    """The function that makes a column of a list; ``error``, naming ``noun``, name and row, where it does not fit."""
    scalar = _SCALARS[kind.scalar]
    encode = scalar.encoder(wire)
    admit = scalar.admit
    zero: Any = () if kind.is_list else scalar.zero
    article = "an" if noun[0] in "aeiou" else "a"

    def write(values: Values, rows: int) -> Any:
        if len(values) != rows:
            raise error(f"{noun} '{name}': {len(values)} values for {rows} rows")
        validity = None
        kinds = {*map(type, values)}
        if _NONE in kinds:
            kinds.discard(_NONE)
            if not nullable:
                place = next(place for place, value in enumerate(values) if value is None)
                raise error(f"{noun} '{name}', row {place}: None, in {article} {noun} with nullable=False")
            validity = pack(values)
            values = [zero if value is None else value for value in values]
        try:
            if kind.is_list:
                return wire.Column(wire.Values_Lists(lists(values)), validity)
            return wire.Column(wire.Values_Scalars(encode(admit(values, kinds))), validity)
        except _Misfit as misfit:
            raise error(f"{noun} '{name}' ({kind}), row {misfit.place}: {misfit.problem}") from None

    def lists(values: Values) -> Any:
        if not {*map(type, values)} <= _LISTS:
            place = next(place for place, value in enumerate(values) if not isinstance(value, (list, tuple)))
            raise _Misfit(place, f"a list is wanted, got {shown(values[place])}")
        ends = [*accumulate(map(len, values))]
        items = [*chain.from_iterable(values)]
        try:
            return wire.Lists(ends, encode(admit(items, {*map(type, items)})))
        except _Misfit as misfit:
            row = bisect_right(ends, misfit.place)
            item = misfit.place - (ends[row - 1] if row else 0)
            raise _Misfit(row, f"item {item}: {misfit.problem}") from None

    return write
