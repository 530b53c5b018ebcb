"""Tests of every type, compared with a simple implementation of the contract, and of errors for invalid values."""

import enum
import json
import random
import struct
import unittest
from array import array
from itertools import pairwise
from pathlib import Path

from larder_plugin import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from larder_plugin._reading import one_row_reader, rows_reader
from larder_plugin._writing import Writer

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
LISTS = [Array(item) for item in MAKERS]
NULLABLE_LISTS = [Array(item, nullable_items=True) for item in MAKERS]
ALL = [*MAKERS, *LISTS, *NULLABLE_LISTS]
FORMATS = {"bool": "?", "int32": "i", "int64": "q", "float32": "f", "float64": "d", "timestamp": "q"}


def made(kind, r):
    if not kind.is_list:
        return MAKERS[kind](r)
    item = next(item for item in MAKERS if item.scalar == kind.scalar)
    return [
        None if kind.nullable_items and r.random() < 0.3 else MAKERS[item](r) for _ in range(r.choice([0, 1, 2, 70]))
    ]


def plain(value):
    return value.tolist() if isinstance(value, memoryview) else value


def written(kinds, columns, *, nullable=True):
    """Returns the frame and the messages of failed rows. The names of the columns are x, y and so on."""
    fields = [(name, kind, nullable) for name, kind in zip("xyz", kinds)]
    return Writer(fields).write(columns, len(columns[0]), ())


def read(kinds, frame, rows):
    return [[plain(value) for value in column] for column in rows_reader(kinds)(frame, rows)]


class Naive:
    """Reads a frame part by part and value by value, as the contract defines it. Checks all of the rules."""

    def __init__(self, kinds, frame, rows):
        self.frame, self.at = frame, 0
        heads = []
        for kind in kinds:
            presence = self.bits(rows)
            heads.append((presence, self.values(kind.scalar, rows, is_end=kind.is_list or kind.scalar not in FORMATS)))
        self.columns = [self.column(kind, *head, rows) for kind, head in zip(kinds, heads)]
        assert self.at == len(frame), "something follows the last part"

    def part(self, size):
        part = self.frame[self.at : self.at + size]
        self.at += size
        while self.at % 8:
            assert self.frame[self.at] == 0, "the padding is not 0"
            self.at += 1
        return part

    def bits(self, count):
        part = self.part((count + 63) // 64 * 8)
        bits = [part[i // 8] >> i % 8 & 1 for i in range(len(part) * 8)]
        assert not any(bits[count:]), "bits beyond the last row are set"
        return bits[:count]

    def values(self, scalar, count, *, is_end):
        form = "I" if is_end else FORMATS[scalar]
        return [value for (value,) in struct.iter_unpack(f"<{form}", self.part(count * struct.calcsize(f"<{form}")))]

    def pieces(self, scalar, ends):
        data = self.part(ends[-1] if ends else 0)
        pieces = [data[a:b] for a, b in pairwise([0, *ends])]
        return [piece.decode() for piece in pieces] if scalar == "utf8" else pieces

    def column(self, kind, presence, slots, rows):
        if kind.is_list:
            count = slots[-1] if slots else 0
            item_presence = self.bits(count) if kind.nullable_items else [1] * count
            items = self.values(kind.scalar, count, is_end=kind.scalar not in FORMATS)
            if kind.scalar not in FORMATS:
                items = self.pieces(kind.scalar, items)
            items = self.nulls(items, item_presence)
            values = [items[a:b] for a, b in pairwise([0, *slots])]
        else:
            values = slots if kind.scalar in FORMATS else self.pieces(kind.scalar, slots)
        return self.nulls(values, presence)

    def nulls(self, values, presence):
        assert not any(value for value, present in zip(values, presence) if not present), "the slot of a null is not 0"
        return [value if present else None for value, present in zip(values, presence)]


class RoundTrip(unittest.TestCase):
    def test_example_of_the_contract(self):
        kinds = [Bool, String, Array(String, nullable_items=True)]
        columns = [[True, None], ["hi", None], [["a", None, "bc"], []]]
        frame, _ = written(kinds, columns)
        expected = (
            "0100000000000000 0100000000000000 0100000000000000 0200000002000000 0300000000000000 0300000003000000 "
            "6869000000000000 0500000000000000 0100000001000000 0300000000000000 6162630000000000"
        )
        self.assertEqual(frame.hex(" ", -8), expected)
        self.assertEqual(read(kinds, frame, 2), columns)

    def test_every_type_round_trips(self):
        r = random.Random(1)
        for kind in ALL:
            for rows in (0, 1, 2, 7, 8, 9, 63, 64, 65):
                for nulls in (0.0, 0.3, 1.0):
                    values = [None if r.random() < nulls else made(kind, r) for _ in range(rows)]
                    with self.subTest(kind=kind, rows=rows, nulls=nulls):
                        frame, failed = written([kind], [values])
                        self.assertEqual(failed, {})
                        self.assertEqual(Naive([kind], frame, rows).columns, [values])
                        self.assertEqual(read([kind], frame, rows), [values])

    def test_several_columns_round_trip(self):
        r = random.Random(2)
        for kinds in zip(ALL, reversed(ALL), LISTS * 3):
            for rows in (0, 1, 70):
                columns = [[r.choice([None, made(kind, r)]) for _ in range(rows)] for kind in kinds]
                frame, _ = written(kinds, columns)
                self.assertEqual(Naive(kinds, frame, rows).columns, columns)
                self.assertEqual(read(kinds, frame, rows), columns)

    def test_one_row_equals_batch_of_one(self):
        r = random.Random(3)
        for kinds in zip(ALL, reversed(ALL), LISTS * 3):
            for nulls in (0.0, 0.5, 1.0):
                values = [None if r.random() < nulls else made(kind, r) for kind in kinds]
                frame, _ = written(kinds, [[value] for value in values])
                self.assertEqual([plain(value) for value in one_row_reader(kinds)(frame)], values)
                writer = Writer([(name, kind, True) for name, kind in zip("xyz", kinds)])
                self.assertEqual(writer.write_one(values), (frame, {}))

    def test_list_of_numbers_is_a_memoryview(self):
        frame, _ = written([Array(Float32)], [[[0.5, 1.5], [], [2.5]]])
        [[first, second, third]] = rows_reader([Array(Float32)])(frame, 3)
        self.assertIs(type(first), memoryview)
        self.assertEqual((first[1], len(first), list(first), sum(first)), (1.5, 2, [0.5, 1.5], 2.0))
        self.assertEqual((len(second), second.tolist(), third.tolist()), (0, [], [2.5]))
        frame, _ = written([Array(Float32, nullable_items=True)], [[[0.5]]])
        self.assertEqual(rows_reader([Array(Float32, nullable_items=True)])(frame, 1), [[[0.5]]])

    def test_frame_of_wrong_size_is_rejected(self):
        frame, _ = written([Float64], [[1.0]])
        for wrong in (frame[:-8], frame + bytes(8)):
            for reads in (lambda: one_row_reader([Float64])(wrong), lambda: rows_reader([Float64])(wrong, 1)):
                with self.assertRaises((ValueError, struct.error)):
                    reads()


class Vectors(unittest.TestCase):
    """The frames that the tests of all development kits share."""

    def test_vectors_are_read_and_written(self):
        vectors = json.loads(Path(__file__).parents[2].joinpath("vectors", "frames.json").read_text())
        scalars = {kind.scalar: kind for kind in MAKERS}
        for case in vectors["cases"]:
            kinds = [
                Array(scalars[kind["scalar"]], nullable_items=kind["nullable_items"])
                if kind["is_list"]
                else scalars[kind["scalar"]]
                for kind in case["types"]
            ]
            columns = [[decoded(kind, value) for value in column] for kind, column in zip(kinds, case["columns"])]
            fields = [(f"c{index}", kind, True) for index, kind in enumerate(kinds)]
            with self.subTest(kinds=kinds, rows=case["rows"]):
                frame, failed = Writer(fields).write(columns, case["rows"], ())
                self.assertEqual((frame.hex(), failed), (case["frame"], {}))
                self.assertEqual(repr(read(kinds, bytes.fromhex(case["frame"]), case["rows"])), repr(columns))


def decoded(kind, value):
    """Returns the value of a vector. JSON has no binary values, no NaN and, for some readers, no exact integers."""
    if isinstance(value, list):
        return [decoded(kind, item) for item in value]
    converters = {"int64": int, "timestamp": int, "float32": float, "float64": float, "binary": bytes.fromhex}
    return value if value is None else converters.get(kind.scalar, lambda same: same)(value)


class Conversions(unittest.TestCase):
    def check(self, kind, value, expected):
        for values, results in (([value], [expected]), ([None, value, value], [None, expected, expected])):
            frame, failed = written([kind], [values])
            self.assertEqual(failed, {})
            self.assertEqual(repr(read([kind], frame, len(values))), repr([results]))

    def test_similar_values_are_converted(self):
        class Level(enum.IntEnum):
            LOW = 1

        class Color(str, enum.Enum):
            RED = "red"

        self.check(Float64, 1, 1.0)
        self.check(Float64, Level.LOW, 1.0)
        self.check(Int64, Level.LOW, 1)
        self.check(String, Color.RED, "red")
        self.check(Bytes, bytearray(b"a"), b"a")
        self.check(Bytes, memoryview(b"a"), b"a")
        self.check(Float32, 0.1, 0.10000000149011612)
        self.check(Float32, float("inf"), float("inf"))
        self.check(Float64, float("nan"), float("nan"))

    def test_lists_of_several_types_are_accepted(self):
        for value in ([1, 2.0], (1, 2.0), array("d", [1, 2]), memoryview(array("d", [1, 2]))):
            self.check(Array(Float32), value, [1.0, 2.0])
        self.check(Array(Float64, nullable_items=True), [None, 1], [None, 1.0])


class Mismatches(unittest.TestCase):
    def check(self, kind, values, row, words, **how):
        frame, failed = written([kind], [values], **how)
        self.assertEqual(failed, {row: words})
        # The other rows are written.
        read([kind], frame, len(values))
        if len(values) == 1 and not how:
            self.assertEqual(Writer([("x", kind, True)]).write_one(values), (frame, failed))

    def test_wrong_type_names_output_and_value(self):
        self.check(Float64, [1.0, "a"], 1, "output 'x' (Float64): expected a float, got str 'a'")
        self.check(Float64, ["a"], 0, "output 'x' (Float64): expected a float, got str 'a'")
        self.check(Float64, [True], 0, "output 'x' (Float64): expected a float, got bool True")
        self.check(Float64, [None, b""], 1, "output 'x' (Float64): expected a float, got bytes b''")
        self.check(
            Int64,
            [1, 2.0],
            1,
            "output 'x' (Int64): expected an int, got float 2.0. hint: convert it with int() or round()",
        )
        self.check(Int64, [True], 0, "output 'x' (Int64): expected an int, got bool True")
        self.check(Bool, [True, 1], 1, "output 'x' (Bool): expected True or False, got int 1")
        self.check(String, [b"a"], 0, "output 'x' (String): expected a str, got bytes b'a'")
        self.check(Bytes, ["a"], 0, "output 'x' (Bytes): expected bytes, got str 'a'")
        self.check(
            UnixTimestamp,
            [1.5],
            0,
            "output 'x' (UnixTimestamp): expected an int (microseconds since 1970), got float 1.5. hint: convert it with "
            "int() or round()",
        )
        self.check(Array(Int64), [[1], 2], 1, "output 'x' (Array(Int64)): expected a list, got int 2")
        self.check(
            Array(String), [["a"], [], ["b", 1]], 2, "output 'x' (Array(String)): item 1: expected a str, got int 1"
        )
        self.check(
            Array(Int64),
            [[1, None]],
            0,
            "output 'x' (Array(Int64)): item 1: expected an int, got None. hint: declare the type with nullable_items=True",
        )

    def test_numbers_out_of_range_fail(self):
        for kind, bits in ((Int32, 32), (Int64, 64), (UnixTimestamp, 64), (Array(Int32), 32)):
            low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
            for value in (low, high):
                value = [value] if kind.is_list else value
                self.assertEqual(read([kind], written([kind], [[value]])[0], 1), [[value]])
            for value in (low - 1, high + 1):
                given = [value] if kind.is_list else value
                frame, failed = written([kind], [[None, given]])
                self.assertRegex(failed[1], rf"int {value} is out of range, {low} to {high}$")
                self.assertEqual(read([kind], frame, 2), [[None, None]])
        self.check(
            Float64, [10**400], 0, "output 'x' (Float64): too large for a float: int " + f"{10**400}"[:57] + "..."
        )
        largest = FLOAT32.unpack(b"\xff\xff\x7f\x7f")[0]
        self.assertEqual(read([Float32], written([Float32], [[largest]])[0], 1), [[largest]])
        self.check(
            Float32,
            [0.0, 1e39],
            1,
            "output 'x' (Float32): too large for 32 bits: float 1e+39. hint: declare it as Float64",
        )

    def test_text_must_be_valid_utf8(self):
        self.check(String, ["ä", "\ud800"], 1, "output 'x' (String): cannot be encoded as UTF-8: str '\\ud800'")

    def test_null_in_non_nullable_output(self):
        words = "output 'x' (Float64): got None, but the output has nullable=False"
        self.check(Float64, [1.0, None], 1, words, nullable=False)
        writer = Writer([("x", Float64, False)])
        self.assertEqual(writer.write_one([None]), (writer.null_row(), {0: words}))
        # Rows that failed, or that lack a required input, are exempt.
        self.assertEqual(writer.write([[None, 1.0]], 2, (0,))[1], {})

    def test_failed_row_is_null_in_all_columns(self):
        frame, failed = written([Float64, String], [[1.0, "a", 3.0], ["x", "y", 7]])
        self.assertEqual(read([Float64, String], frame, 3), [[1.0, None, None], ["x", None, None]])
        self.assertEqual(list(failed), [1, 2])

    def test_value_without_repr_is_an_error(self):
        class Broken:
            def __repr__(self):
                raise ValueError("no text")

        self.check(
            Float64, [Broken()], 0, "output 'x' (Float64): expected a float, got Broken (its repr() raises ValueError)"
        )


if __name__ == "__main__":
    unittest.main()
