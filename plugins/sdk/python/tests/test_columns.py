"""Tests of every type, compared with a simple implementation of the contract, and of errors for invalid values."""

import random
import struct
import unittest
from itertools import pairwise

from larder_plugin import (
    Array,
    BadInput,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Internal,
    String,
    UnixTimestamp,
    _wire,
)
from larder_plugin._columns import pack, reader, unpack, writer

FLOAT32 = struct.Struct("<f")
MAKERS = {
    Bool: lambda r: r.random() < 0.5,
    Int32: lambda r: r.choice([-(2**31), 2**31 - 1, 0, r.randrange(100)]),
    Int64: lambda r: r.choice([-(2**63), 2**63 - 1, 0, r.randrange(100)]),
    Float32: lambda r: FLOAT32.unpack(FLOAT32.pack(r.gauss(0, 1)))[0],
    Float64: lambda r: r.choice([r.gauss(0, 1), float("inf"), -0.0, 5e-324]),
    String: lambda r: r.choice(["", "plain", "grün", "猫", "\0", "a" * r.randrange(9)]),
    Bytes: lambda r: r.randbytes(r.randrange(5)),
    UnixTimestamp: lambda r: r.randrange(-(2**62), 2**62),
}
ALL = [*MAKERS, *map(Array, MAKERS)]


def made(kind, r):
    if kind.is_list:
        item = next(item for item in MAKERS if item.scalar == kind.scalar)
        return [MAKERS[item](r) for _ in range(r.randrange(4))]
    return MAKERS[kind](r)


def written(kind, values, *, nullable=True):
    return writer("x", kind, _wire, nullable=nullable)(values, len(values))


def read(kind, column, rows):
    return reader({"x": kind}, _wire)([column], rows)[0]


def naive(column, rows):
    """Converts a column to a list, slot by slot, as the contract defines it."""

    def slots(scalars):
        value = scalars.value
        if isinstance(value, _wire.VarBytes):
            parts = [value.data[a:b] for a, b in pairwise([0, *value.ends])]
            return [part.decode() for part in parts] if isinstance(scalars, _wire.Scalars_Strings) else parts
        return [{0: False, 1: True}[byte] for byte in value] if isinstance(scalars, _wire.Scalars_Bools) else value

    if isinstance(column.values, _wire.Values_Lists):
        items = slots(column.values.value.items)
        values = [items[a:b] for a, b in pairwise([0, *column.values.value.ends])]
    else:
        values = slots(column.values.value)
    validity = column.validity if column.validity is not None else b"\xff" * rows
    return [values[i] if validity[i // 8] >> i % 8 & 1 else None for i in range(rows)]


class RoundTrip(unittest.TestCase):
    def test_every_type_round_trips(self):
        r = random.Random(1)
        for kind in ALL:
            for rows in (0, 1, 2, 7, 8, 9, 33):
                for nulls in (0.0, 0.3, 1.0):
                    values = [None if r.random() < nulls else made(kind, r) for _ in range(rows)]
                    with self.subTest(kind=kind, values=values):
                        column = written(kind, values)
                        self.assertEqual(naive(column, rows), values)
                        self.assertEqual(read(kind, column, rows), values)
                        if None not in values:
                            self.assertIsNone(column.validity)

    def test_bitmaps_match_the_contract(self):
        self.assertEqual(pack([1, None, 1]), b"\x05")
        self.assertEqual(pack([None] * 8 + [1]), b"\x00\x01")
        self.assertEqual(unpack(b"\x05", 3), "101")
        self.assertEqual(unpack(b"\x00\x01", 9), "000000001")

    def test_full_bitmap_means_no_nulls(self):
        column = written(Float64, [1.0, 2.0])
        column.validity = b"\x03"
        self.assertEqual(read(Float64, column, 2), [1.0, 2.0])

    def test_null_slots_are_zero(self):
        self.assertEqual(written(Float64, [None, 1.0]).values.value.value, [0.0, 1.0])
        self.assertEqual(written(String, [None, "a"]).values.value.value, _wire.VarBytes([0, 1], b"a"))
        self.assertEqual(written(Array(Int64), [None, [1]]).values.value.ends, [0, 1])

    def test_compatible_values_are_converted(self):
        self.assertEqual(written(Float64, [1, 2.5]).values.value.value, [1.0, 2.5])
        self.assertIs(type(written(Float64, [1]).values.value.value[0]), float)
        self.assertEqual(written(Float64, [None, 1]).values.value.value, [0.0, 1.0])
        self.assertEqual(written(Bytes, [bytearray(b"a")]).values.value.value.data, b"a")
        self.assertEqual(written(Array(Float32), [(1, 2.0)]).values.value.items.value, [1.0, 2.0])
        self.assertEqual(written(Float32, [0.1]).values.value.value, [0.10000000149011612])


class Mismatches(unittest.TestCase):
    def check(self, kind, values, words, **how):
        with self.assertRaises(Internal) as raised:
            written(kind, values, **how)
        self.assertEqual(str(raised.exception), words)

    def test_wrong_type_names_output_row_and_value(self):
        self.check(Float64, [1.0, "a"], "output 'x' (Float64), row 1: expected a float, got str 'a'")
        self.check(Float64, [True], "output 'x' (Float64), row 0: expected a float, got bool True")
        self.check(Float64, [None, b""], "output 'x' (Float64), row 1: expected a float, got bytes b''")
        self.check(
            Int64, [1, 2.0], "output 'x' (Int64), row 1: expected an int, got float 2.0. hint: convert it with int() or round()"
        )
        self.check(Int64, [True], "output 'x' (Int64), row 0: expected an int, got bool True")
        self.check(Bool, [True, 1], "output 'x' (Bool), row 1: expected True or False, got int 1")
        self.check(String, [b"a"], "output 'x' (String), row 0: expected a str, got bytes b'a'")
        self.check(Bytes, ["a"], "output 'x' (Bytes), row 0: expected bytes, got str 'a'")
        self.check(
            UnixTimestamp, [1.5], "output 'x' (UnixTimestamp), row 0: expected an int (microseconds since 1970), got float 1.5"
        )
        self.check(Array(Int64), [[1], 2], "output 'x' (Array(Int64)), row 1: expected a list, got int 2")
        self.check(
            Array(String), [["a"], [], ["b", 1]], "output 'x' (Array(String)), row 2: item 1: expected a str, got int 1"
        )
        self.check(Array(Int64), [[1, None]], "output 'x' (Array(Int64)), row 0: item 1: expected an int, got None")

    def test_numbers_out_of_range_are_errors(self):
        written(Int32, [-(2**31), 2**31 - 1])
        self.check(
            Int32, [0, 2**31], "output 'x' (Int32), row 1: 2147483648 is out of range, -2147483648 to 2147483647"
        )
        self.check(
            Int64,
            [-(2**63) - 1],
            "output 'x' (Int64), row 0: -9223372036854775809 is out of range, "
            "-9223372036854775808 to 9223372036854775807",
        )
        with self.assertRaisesRegex(Internal, "row 0: too large for a float: int 1000"):
            written(Float64, [10**400])

    def test_text_must_be_valid_utf8(self):
        with self.assertRaisesRegex(Internal, "row 1: cannot be encoded as UTF-8"):
            written(String, ["ä", "\ud800"])

    def test_null_in_non_nullable_output(self):
        self.check(Float64, [1.0, None], "output 'x', row 1: got None, but the output has nullable=False", nullable=False)

    def test_wrong_number_of_values(self):
        with self.assertRaises(Internal) as raised:
            writer("x", Float64, _wire, nullable=True)([1.0], 2)
        self.assertEqual(str(raised.exception), "output 'x': 1 values for 2 rows")


class Sent(unittest.TestCase):
    def check(self, kind, column, words):
        with self.assertRaises(BadInput) as raised:
            read(kind, column, 1)
        self.assertEqual(str(raised.exception), words)

    def test_column_of_wrong_type_names_both_types(self):
        self.check(Float64, written(Int64, [1]), "input 'x': expected Float64, the host sent int64s")
        self.check(Float64, written(Array(Float64), [[1.0]]), "input 'x': expected Float64, the host sent lists of float64s")
        self.check(Array(Float64), written(Float64, [1.0]), "input 'x': expected Array(Float64), the host sent float64s")
        self.check(
            Array(String), written(Array(Bytes), [[b""]]), "input 'x': expected Array(String), the host sent lists of binaries"
        )

    def test_wrong_number_of_columns(self):
        with self.assertRaisesRegex(BadInput, "the host sent 0 columns for 1 inputs"):
            reader({"x": Int64}, _wire)([], 1)


if __name__ == "__main__":
    unittest.main()
