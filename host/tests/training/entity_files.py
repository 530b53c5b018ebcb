"""Gives `larder training-set` entity rows of many types and forms, also damaged ones. Each file must either work, or end
with a message that names what is wrong, and leave no output.

Usage: entity_files.py LARDER DIR
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AT = 1_790_000_000
"""The time of all feature rows, in seconds."""
LARGE = 2**53 + 1
TIME = "event_timestamp"
VIEWS = {
    "text": ("String", pa.array(["a", "b"])),
    "number": ("Int64", pa.array([1, 2, LARGE])),
    "small": ("Int32", pa.array([1, 2], pa.int32())),
    "blob": ("Bytes", pa.array([b"a", b"b"])),
    "moment": ("UnixTimestamp", pa.array([0, 86_400], pa.timestamp("s"))),
}
"""A view for each key, with the type of the key and its values. The feature `KEY_value` counts from one."""


@dataclass
class Case:
    """Entity rows, and the values of the feature, or parts of the message. Bytes are the contents of the file."""

    name: str
    rows: pa.Table | bytes
    expected: list[int | None] | list[str]
    key: str = "text"
    options: list[str] = field(default_factory=list)
    writer: dict[str, Any] = field(default_factory=dict)


def times(rows: int, of: pa.DataType = pa.timestamp("us", "UTC")) -> pa.Array:
    return pa.array([AT] * rows, pa.int64()).cast(pa.timestamp("s")).cast(of)


def rows_of(key: str, values: Any, time: Any = None, **more: pa.Array) -> pa.Table:
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.table({key: values, TIME: times(len(values)) if time is None else time, **more})


def keys() -> list[Case]:
    """Returns keys of each type that Parquet can store."""
    texts = ["a", "c", None, "b"]
    found: list[int | None] = [1, None, None, 2]
    text_types = {"string": pa.string(), "large string": pa.large_string(), "string view": pa.string_view()}
    cases = [Case(name, rows_of("text", pa.array(texts, of)), found) for name, of in text_types.items()]
    for index in (pa.int8(), pa.uint32()):
        for values in (pa.string(), pa.large_string()):
            of = pa.dictionary(index, values)
            cases.append(Case(str(of), rows_of("text", pa.array(texts).dictionary_encode().cast(of)), found))
    cases += [
        Case("text without an Arrow schema", rows_of("text", texts), found, writer={"store_schema": False}),
        Case("text in many row groups", rows_of("text", texts * 50), found * 50, writer={"row_group_size": 3}),
        Case("bytes for String", rows_of("text", [b"a", b"c"]), [1, None]),
        Case("bytes that are not UTF-8, for String", rows_of("text", [b"a", b"\xff"]), ["column 'text'", "UTF-8"]),
        Case("nulls for String", rows_of("text", pa.nulls(2)), [None, None]),
        Case("int64 for String", rows_of("text", [1, 2]), [None, None]),
        Case("list for String", rows_of("text", [["a"]]), ["column 'text'", "not a list or a mapping"]),
        Case("struct for String", rows_of("text", [{"a": "a"}]), ["column 'text'", "not a list or a mapping"]),
        Case("int32 for Int32", rows_of("small", pa.array([1, None, 2], pa.int32())), [1, None, 2], "small"),
        Case("double for Int32", rows_of("small", [1.0, None, 3.0]), [1, None, None], "small"),
        Case("int64 beyond Int32", rows_of("small", [1, 2**40]), ["column 'small'", ": 1099511627776"], "small"),
        Case("binary for Bytes", rows_of("blob", [b"a", b"c"]), [1, None], "blob"),
        Case("fixed binary for Bytes", rows_of("blob", pa.array([b"b"], pa.binary(1))), [2], "blob"),
        Case("text for Bytes", rows_of("blob", ["a"]), [1], "blob"),
        Case("binary that is not UTF-8", rows_of("blob", [b"a", b"\xff"]), ["column 'blob'", "row 1", "UTF-8"], "blob"),
        Case("timestamp for UnixTimestamp", rows_of("moment", pa.array([0, 1], pa.timestamp("s"))), [1, None], "moment"),
        Case("int64 for UnixTimestamp", rows_of("moment", [86_400]), [2], "moment"),
        Case("date for UnixTimestamp", rows_of("moment", pa.array([1], pa.date32())), [2], "moment"),
    ]
    numbers: list[tuple[Any, Any]] = [
        (pa.array([1, 3, None], pa.int8()), [1, None, None]),
        (pa.array([1, 2], pa.uint64()), [1, 2]),
        (pa.array([2**64 - 1], pa.uint64()), ["column 'number'", "out of range: 18446744073709551615"]),
        (pa.array([LARGE, LARGE - 1]), [3, None]),
        (pa.array([LARGE, 2], pa.decimal128(20, 0)), [3, 2]),
        (pa.array([Decimal("2.50")]), ["column 'number'", "2.50"]),
        # pandas stores integers with nulls as doubles.
        (pa.array([1.0, float("nan"), 2.0, None]), [1, None, 2, None]),
        (pa.array([1.5]), ["column 'number'", "1.5"]),
        (pa.array([1e300]), ["column 'number'", "out of range"]),
        (pa.array(["1", " 2 "]), [1, 2]),
        (pa.array(["x"]), ["column 'number'", "'x'"]),
        (pa.array([True, False]), [1, None]),
        (pa.array([1, 2]).dictionary_encode(), [1, 2]),
    ]
    cases += [
        Case(f"{array.type} for Int64: {array.to_pylist()}", rows_of("number", array), expected, "number")
        for array, expected in numbers
    ]
    return cases


def entity_times() -> list[Case]:
    """Returns times of each type that Parquet can store."""
    two = ["a", "b"]
    zones = (None, "UTC", "Asia/Tokyo", "-11:30")
    types = [pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in zones]
    # Parquet has no seconds. pyarrow writes milliseconds.
    types += [pa.timestamp("s"), pa.timestamp("s", "UTC")]
    types.append(pa.timestamp("us", "Mars/Base"))
    cases = [Case(f"time as {of}", rows_of("text", two, times(2, of)), [1, 2]) for of in types]
    dates = pa.array([AT // 86_400 + 1, AT // 86_400], pa.date32())
    largest = pa.array([2**63 - 1, -(2**63)], pa.timestamp("us"))
    cases += [
        Case("time as a date", rows_of("text", two, dates), [1, None]),
        Case("time as a 64-bit date", rows_of("text", two, dates.cast(pa.date64())), [1, None]),
        Case("time as int96", rows_of("text", two), [1, 2], writer={"use_deprecated_int96_timestamps": True}),
        Case("time in a dictionary", rows_of("text", two, times(2).dictionary_encode()), [1, 2]),
        Case("largest and smallest time", rows_of("text", two, largest), [1, None]),
        Case("only null times", rows_of("text", two, pa.nulls(2)), [None, None]),
    ]
    wrong = {
        "text": pa.array(["2026-10-01T00:00:00Z"] * 2),
        "int64": pa.array([AT, AT]),
        "double": pa.array([1.0, 2.0]),
        "bool": pa.array([True, False]),
        "time of day": pa.array([1, 2], pa.time64("us")),
        "list": pa.array([[1], [2]]),
        "struct": pa.array([{"a": 1}] * 2),
    }
    message = [f"column '{TIME}'", "not a timestamp or a date"]
    cases += [Case(f"time as {name}", rows_of("text", two, array), message) for name, array in wrong.items()]
    too_late = pa.array([2**62] * 2, pa.timestamp("ms"))
    cases.append(Case("time beyond microseconds", rows_of("text", two, too_late), [f"column '{TIME}'", "row 0", "range"]))
    return cases


def columns() -> list[Case]:
    """Returns columns that are copied, and names."""
    two = ["a", "b"]
    labels = {
        "struct": pa.array([{"a": [1]}, None]),
        "map": pa.array([[("x", 1)], []], pa.map_(pa.string(), pa.int64())),
        "large list": pa.array([[1], None], pa.large_list(pa.int64())),
        "fixed list": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        "decimal": pa.array([1, None], pa.decimal256(50, 3)),
        "fixed binary": pa.array([b"ab", None], pa.binary(2)),
        "half": pa.array([1.0, 2.0], pa.float32()).cast(pa.float16()),
        "time of day": pa.array([1, 2], pa.time64("ns")),
        "duration": pa.array([1, 2], pa.duration("s")),
        "dictionary": pa.array(["x", "y"]).dictionary_encode(),
        "nulls": pa.nulls(2),
        "view": pa.array(["q", None], pa.string_view()),
        "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
        "day": pa.array([86_400_000, None], pa.date64()),
        "": pa.array([1, 2]),
        "two\nlines": pa.array([1, 2]),
    }
    number = pa.array([1, 2])
    return [
        Case("columns of all types", rows_of("text", two, None, **labels), [1, 2]),
        Case("column named as a feature", rows_of("text", two, None, text_value=number), ["column 'text_value'", "rename"]),
        Case(
            "column named as a full feature name",
            rows_of("text", two, None, text__text_value=number),
            ["column 'text__text_value'", "rename"],
            options=["--full-feature-names"],
        ),
        Case("no key", rows_of("other", two), ["no column 'text'"]),
        Case("key in upper case", rows_of("TEXT", two), ["no column 'text'"]),
        Case("no time", pa.table({"text": two}), [f"no column '{TIME}'"]),
        Case("no columns", pa.table({}), [f"no column '{TIME}'"]),
    ]


def files() -> list[Case]:
    """Returns files without rows, and files that cannot be read."""
    valid = pa.BufferOutputStream()
    pq.write_table(rows_of("text", ["a"]), valid)
    contents = valid.getvalue().to_pybytes()
    no_groups = pa.BufferOutputStream()
    pq.ParquetWriter(no_groups, rows_of("text", ["a"]).schema).close()
    name = ["entities.parquet"]
    return [
        Case("no rows", rows_of("text", pa.array([], pa.string())), []),
        Case("no row groups", no_groups.getvalue().to_pybytes(), []),
        Case("empty file", b"", name),
        Case("text file", b"customer_id,event_timestamp\n1,2026-01-01\n", name),
        Case("truncated file", contents[:-20], name),
        Case("damaged page", contents[:4] + b"\xff" * 56 + contents[60:], name),
        Case("damaged footer", contents[:-60] + b"\xff" * 20 + contents[-40:], name),
    ]


class Checks:
    def __init__(self, larder: str, directory: Path) -> None:
        self.larder, self.directory = larder, directory
        self.made = 0
        self.wrong: list[str] = []

    def write_views(self) -> None:
        views = []
        for key, (_, values) in VIEWS.items():
            counts = pa.array(range(1, len(values) + 1))
            pq.write_table(rows_of(key, values, None, **{f"{key}_value": counts}), self.directory / f"{key}.parquet")
            features = [{"name": f"{key}_value", "type": "Int64"}]
            views.append({"name": key, "entities": [key], "source": {"path": f"{key}.parquet"}, "features": features})
        entities = [{"name": key, "type": of} for key, (of, _) in VIEWS.items()]
        (self.directory / "features").mkdir()
        # JSON is also YAML.
        definitions = json.dumps({"entities": entities, "feature_views": views})
        (self.directory / "features" / "views.yaml").write_text(definitions)
        (self.directory / "larder.yaml").write_text("naming_warnings: false\n")

    def equal(self, what: str, found: Any, expected: Any) -> None:
        self.made += 1
        if found != expected:
            self.wrong.append(f"{what}: {found!r} instead of {expected!r}")

    def run(self, case: Case) -> None:
        path, out = self.directory / "entities.parquet", self.directory / "set.parquet"
        if isinstance(case.rows, bytes):
            path.write_bytes(case.rows)
        else:
            pq.write_table(case.rows, path, **case.writer)
        for left in (out, out.with_name(out.name + ".manifest.json")):
            left.unlink(missing_ok=True)
        feature = f"{case.key}:{case.key}_value"
        command = [self.larder, "training-set", "--entities", path.name, "--out", out.name, "--feature", feature]
        done = subprocess.run([*command, *case.options], cwd=self.directory, capture_output=True, text=True)
        if any(isinstance(part, str) for part in case.expected):
            missing = [part for part in case.expected if str(part) not in done.stderr]
            self.equal(f"{case.name}, {done.stderr!r} lacks", (done.returncode, missing), (1, []))
            left = [file.name for file in self.directory.iterdir() if out.name in file.name]
            self.equal(f"{case.name}, files that are left", left, [])
            return
        self.equal(f"{case.name}, {done.stderr!r}", done.returncode, 0)
        if done.returncode == 0:
            rows, before = read(out), read(path)
            self.equal(case.name, rows.column(len(before.schema)).to_pylist(), case.expected)
            copied = rows.select(range(len(before.schema)))
            if "use_deprecated_int96_timestamps" in case.writer:
                # The type of such a column depends on the reader.
                copied, before = copied.drop_columns([TIME]), before.drop_columns([TIME])
            self.equal(f"{case.name}, types of the copied columns", copied.schema.types, before.schema.types)
            self.equal(f"{case.name}, copied columns", texts(copied), texts(before))


def read(path: Path) -> pa.Table:
    # `read_table` also reads directories, and adds their columns.
    return pq.ParquetFile(path).read()


def texts(rows: pa.Table) -> list[str]:
    """Returns the values of each column as text. Some of them have no counterpart in Python."""
    return [column.combine_chunks().to_string(window=1_000) for column in rows.columns]


def main() -> None:
    checks = Checks(sys.argv[1], Path(sys.argv[2]))
    checks.write_views()
    for case in keys() + entity_times() + columns() + files():
        checks.run(case)
    print(f"{checks.made} values, {len(checks.wrong)} of them differ")
    for wrong in checks.wrong:
        print(wrong[:2_000])
    sys.exit(1 if checks.wrong else 0)


if __name__ == "__main__":
    main()
