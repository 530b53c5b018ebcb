"""Converts columns of the contract to Python lists with ``None``, and back.

Everything that depends only on the column types is computed once, when an instance is created: :func:`reader` and
:func:`writer` return functions, which run on every call. To be fast, these functions check the types of all values of a
column at once (``{*map(type, values)}``), and check individual values only to describe an error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, NoReturn

from ._errors import BadInput, Fault, Internal, shown
from ._types import Bool, Float32, Float64, Type

Values = list[Any]
"""A value or ``None`` for each row."""
Wire = Any
"""The module with the contract's classes: the generated one, or :mod:`larder_plugin._wire`."""


class _ColumnError(Exception):
    """The value at index ``place`` does not match the type of the column."""

    def __init__(self, place: int, problem: str) -> None:
        self.place = place
        self.problem = problem


# === Bitmaps ===


def pack(values: Sequence[object]) -> bytes:
    """Returns the bitmap of the values that are not ``None``, least significant bit first."""
    bits = "".join(["0" if value is None else "1" for value in reversed(values)])
    return int(bits, 2).to_bytes((len(values) + 7) // 8, "little")


def unpack(validity: bytes, rows: int) -> str:
    """Returns a bitmap as text with one character for each row, which is ``1`` if the value is present."""
    # An additional bit above the last row keeps leading zeros. The slice removes this bit and Python's prefix 0b.
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
    # In ASCII, one byte is one character, so the ends of the bytes are also the ends in the text.
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
            raise _ColumnError(place, f"expected a float, got {shown(value)}")
        try:
            floats.append(float(value))
        except OverflowError:
            raise _ColumnError(place, f"too large for a float: {shown(value)}") from None
    return floats


def _ints(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            hint = ". hint: convert it with int() or round()" if isinstance(value, float) else ""
            raise _ColumnError(place, f"expected an int, got {shown(value)}{hint}")
    return [int(value) for value in values]


def _instants(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise _ColumnError(place, f"expected an int (microseconds since 1970), got {shown(value)}")
    return [int(value) for value in values]


def _bools(values: Values, kinds: set[type]) -> Values:
    place = next(place for place, value in enumerate(values) if not isinstance(value, bool))
    raise _ColumnError(place, f"expected True or False, got {shown(values[place])}")


def _strings(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise _ColumnError(place, f"expected a str, got {shown(value)}")
    return [str(value) for value in values]


def _binaries(values: Values, kinds: set[type]) -> Values:
    for place, value in enumerate(values):
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise _ColumnError(place, f"expected bytes, got {shown(value)}")
    return [bytes(value) for value in values]


class _Scalar:
    """Reads, checks and writes values of one scalar type."""

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
        """Converts values, whose types are ``kinds``, to values of the scalar type, or raises `_ColumnError`."""
        if kinds and kinds != self.exact:
            values = self.convert(values, kinds)
        if self.limits is not None and values:
            low, high = self.limits
            if min(values) < low or max(values) > high:
                place = next(place for place, value in enumerate(values) if not low <= value <= high)
                raise _ColumnError(place, f"{values[place]} is out of range, {low} to {high}")
        return values

    def encoder(self, wire: Wire) -> Callable[[Values], Any]:
        """Returns a function that converts admitted values to the contract's scalars."""
        make: Callable[[Any], Any] = getattr(wire, self.case)
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
                    raise _ColumnError(place, f"cannot be encoded as UTF-8: {shown(values[place])}") from None
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

_value = attrgetter("value")


def reader(fields: Mapping[str, Type], wire: Wire) -> Callable[[list[Any], int], list[Values]]:
    """Returns a function that converts all columns to lists. It raises `BadInput` if a column has the wrong type."""
    kinds = [wire.Lists if kind.is_list else getattr(wire, _SCALARS[kind.scalar].case) for kind in fields.values()]
    decoders = [_decoder(name, kind, wire) for name, kind in fields.items()]
    plain = all(decode is _value for decode in decoders)
    no_nulls = [None] * len(kinds)

    def read(inputs: list[Any], rows: int) -> list[Values]:
        values = [column.values.value for column in inputs]
        if [*map(type, values)] != kinds:
            _refuse(values, kinds, fields, wire)
        columns = [*map(_value, values)] if plain else [decode(value) for decode, value in zip(decoders, values)]
        validities = [column.validity for column in inputs]
        if validities != no_nulls:
            full = ((1 << rows) - 1).to_bytes((rows + 7) // 8, "little")
            for place, validity in enumerate(validities):
                if validity is not None and validity != full:
                    present = unpack(validity, rows)
                    columns[place] = [
                        value if bit == "1" else None for value, bit in zip(columns[place], present, strict=True)
                    ]
        return columns

    return read


def _decoder(name: str, kind: Type, wire: Wire) -> Callable[[Any], Values]:
    """Returns a function that converts the values of one column from the contract's types to a list."""
    scalar = _SCALARS[kind.scalar]
    decode = scalar.decode
    if not kind.is_list:
        return _value if decode is None else lambda values: decode(values.value)
    expected = getattr(wire, scalar.case)

    def lists(values: Any) -> Values:
        if type(values.items) is not expected:
            raise BadInput(f"input '{name}': expected {kind}, the host sent {_sent(values, wire)}")
        items = values.items.value if decode is None else decode(values.items.value)
        start, slots = 0, []
        for end in values.ends:
            slots.append(items[start:end])
            start = end
        return slots

    return lists


def _refuse(values: list[Any], kinds: list[type], fields: Mapping[str, Type], wire: Wire) -> NoReturn:
    if len(values) != len(kinds):
        raise BadInput(f"the host sent {len(values)} columns for {len(kinds)} inputs")
    for (name, kind), value, wanted in zip(fields.items(), values, kinds):
        if type(value) is not wanted:
            raise BadInput(f"input '{name}': expected {kind}, the host sent {_sent(value, wire)}")
    raise AssertionError("the kinds differ")


def _sent(values: Any, wire: Wire) -> str:
    """Returns the contract's name of the type of a received column."""
    if type(values) is wire.Lists:
        return f"lists of {type(values.items).__name__.removeprefix('Scalars_').lower()}"
    return type(values).__name__.removeprefix("Scalars_").lower()


# === Writing ===

_NONE = type(None)
_LISTS = {list, tuple}
_UNBOUND = {Bool, Float32, Float64}


def writer(
    name: str, kind: Type, wire: Wire, *, nullable: bool, noun: str = "output", error: type[Fault] = Internal
) -> Callable[[Values, int], Any]:
    """Returns a function that converts a list to a column.

    If a value does not match the type, the function raises ``error``. The message has ``noun``, the name and the row.
    """
    scalar = _SCALARS[kind.scalar]
    encode = scalar.encoder(wire)
    admit = scalar.admit
    # For types without a range, values of the right Python type need no further check.
    exact = scalar.exact if kind in _UNBOUND else None
    zero: Any = () if kind.is_list else scalar.zero

    make_column, make_scalars = wire.Column, wire.Values_Scalars

    def write(values: Values, rows: int) -> Any:
        if len(values) != rows:
            raise error(f"{noun} '{name}': {len(values)} values for {rows} rows")
        kinds = {type(values[0])} if rows == 1 else {*map(type, values)}
        if kinds == exact:
            return make_column(make_scalars(encode(values)), None)
        validity = None
        if _NONE in kinds:
            kinds.discard(_NONE)
            if not nullable:
                place = next(place for place, value in enumerate(values) if value is None)
                raise error(f"{noun} '{name}', row {place}: got None, but the {noun} has nullable=False")
            validity = pack(values)
            values = [zero if value is None else value for value in values]
        try:
            if kind.is_list:
                return make_column(wire.Values_Lists(lists(values)), validity)
            return make_column(make_scalars(encode(admit(values, kinds))), validity)
        except _ColumnError as mismatch:
            raise error(f"{noun} '{name}' ({kind}), row {mismatch.place}: {mismatch.problem}") from None

    def lists(values: Values) -> Any:
        if not {*map(type, values)} <= _LISTS:
            place = next(place for place, value in enumerate(values) if not isinstance(value, (list, tuple)))
            raise _ColumnError(place, f"expected a list, got {shown(values[place])}")
        ends = [*accumulate(map(len, values))]
        items = [*chain.from_iterable(values)]
        try:
            return wire.Lists(ends, encode(admit(items, {*map(type, items)})))
        except _ColumnError as mismatch:
            row = bisect_right(ends, mismatch.place)
            item = mismatch.place - (ends[row - 1] if row else 0)
            raise _ColumnError(row, f"item {item}: {mismatch.problem}") from None

    return write
