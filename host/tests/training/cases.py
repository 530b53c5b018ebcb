"""Random feature views, their files, and entity rows.

A `World` has many views and one set of entity rows. The keys, the times and the created times are chosen from a few values
each, so that ties and times at the bound of a ttl are common. Each pair of an entity row and a view is one case.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import pyarrow as pa
import pyarrow.parquet as pq

SECOND = 1_000_000
START = 1_790_000_000 * SECOND
"""A time in microseconds, from which all other times are at most some seconds away."""
NULLS = 0.06


@dataclass
class Key:
    """A join key: its type in the definitions, the types of its column in files, and its values. The values of some keys run
    together if their texts are appended to each other."""

    name: str
    declared: str
    stored: list[pa.DataType]
    values: list[Any]


TEXTS = ["", "1", "12", "123", "2", "23", "3", "ä", "a b", "A", "a", "\u0000"]
NUMBERS = [0, -1, 1, 12, 123, 2, 23, 3, 2**31 - 1, -(2**31)]
KEYS = {
    key.name: key
    for key in [
        Key("text", "String", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], TEXTS),
        Key("left", "String", [pa.string(), pa.string_view()], TEXTS),
        Key("right", "String", [pa.string()], TEXTS),
        Key("number", "Int64", [pa.int64()], [*NUMBERS, 2**53 + 1, 2**53, -(2**63)]),
        Key("small", "Int32", [pa.int32(), pa.int64()], NUMBERS),
        Key("bytes", "Bytes", [pa.binary(), pa.large_binary()], [text.encode() for text in TEXTS]),
    ]
}
KEY_SETS = [
    ["text"],
    ["left", "right"],
    ["number"],
    ["number", "text"],
    ["small"],
    ["bytes"],
    ["right", "left", "small"],
    [],
]


@dataclass
class Type:
    """A type of a feature: the types of its column in files, and its values."""

    declared: str
    stored: list[pa.DataType]
    value: Callable[[random.Random], Any]


def one_of(*values: Any) -> Callable[[random.Random], Any]:
    return lambda dice: dice.choice(values)


def lists(item: Callable[[random.Random], Any]) -> Callable[[random.Random], Any]:
    return lambda dice: [None if dice.random() < NULLS else item(dice) for _ in range(dice.randrange(4))]


DOUBLES = one_of(0.0, -0.0, 0.1, -1.5, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))
SINGLES = one_of(0.0, -0.0, 0.5, 2.0**-149, 3e38, float("nan"), float("inf"), float("-inf"))
INTEGERS = one_of(0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 9_007_199_254_740_993)
STRINGS = one_of("", "a", "NaN", "null", "ä\u0000", "x" * 300)
TYPES = [
    Type("Int64", [pa.int64()], INTEGERS),
    Type("Int64", [pa.int16(), pa.uint8(), pa.int32()], one_of(0, 1, 100)),
    Type("Int32", [pa.int32(), pa.int64()], one_of(0, -1, 2**31 - 1, -(2**31))),
    Type("Float64", [pa.float64()], DOUBLES),
    Type("Float64", [pa.float32(), pa.float64()], SINGLES),
    Type("Float32", [pa.float32()], SINGLES),
    Type("Bool", [pa.bool_()], one_of(True, False)),
    Type("String", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], STRINGS),
    Type("Bytes", [pa.binary(), pa.large_binary()], one_of(b"", b"a", b"\xff\x00")),
    Type("UnixTimestamp", [pa.timestamp("us", "UTC"), pa.timestamp("us")], one_of(0, START, -SECOND)),
    Type("Array(Int64)", [pa.list_(pa.int64()), pa.large_list(pa.int64())], lists(INTEGERS)),
    Type("Array(Float64)", [pa.list_(pa.float64())], lists(DOUBLES)),
    Type("Array(Float32)", [pa.list_(pa.float32())], lists(SINGLES)),
    Type("Array(String)", [pa.list_(pa.string())], lists(STRINGS)),
    Type("Array(Bool)", [pa.list_(pa.bool_())], lists(one_of(True, False))),
]


@dataclass
class View:
    name: str
    keys: list[str]
    ttl: int
    """In microseconds; 0 means no limit."""
    has_created: bool
    features: list[tuple[str, Type]]
    path: Path
    files: list[Path] = field(default_factory=list)

    def definition(self) -> dict[str, Any]:
        source = {"path": str(self.path), "timestamp_field": "event time"}
        if self.has_created:
            source["created_timestamp_column"] = "created time"
        return {
            "name": self.name,
            "entities": self.keys,
            "ttl": f"{self.ttl}us",
            "source": source,
            "features": [{"name": name, "type": of.declared} for name, of in self.features],
        }


class World:
    """Views and entity rows. The file of the entity rows is written by the caller."""

    def __init__(self, directory: Path, seed: int, views: int, entity_rows: int) -> None:
        self.dice = random.Random(seed)
        self.directory = directory
        directory.mkdir(parents=True)
        self.views = [self.view(number) for number in range(views)]
        self.entities = self.entity_rows(entity_rows)
        definitions = {
            "entities": [{"name": key.name, "type": key.declared} for key in KEYS.values()],
            "feature_views": [view.definition() for view in self.views],
            "feature_services": [{"name": "all", "features": [view.name for view in self.views]}],
        }
        (directory / "features").mkdir()
        # JSON is also YAML.
        (directory / "features" / "views.yaml").write_text(json.dumps(definitions))
        (directory / "larder.yaml").write_text("naming_warnings: false\n")

    def view(self, number: int) -> View:
        dice = self.dice
        path = self.directory / f"view {number}"
        features = [(f"f{place}", dice.choice(TYPES)) for place in range(dice.randrange(1, 5))]
        ttl = dice.choice([0, 1, SECOND, 2 * SECOND, 3 * SECOND])
        keys = KEY_SETS[number % len(KEY_SETS)]
        view = View(f"view_{number}", keys, ttl, dice.random() < 0.7, features, path)
        path.mkdir()
        for place in range(dice.choice([1, 1, 2, 5])):
            # One file may have other types than the next one.
            (path / f"part={place % 2}").mkdir(exist_ok=True)
            view.files.append(path / f"part={place % 2}" / f"{place}.parquet")
            # A view without rows is an error, but a file without rows is not.
            self.write_rows(view, view.files[-1], dice.choice([0, 1, 40, 200]) if place > 0 else 200)
        view.files.sort()
        return view

    def time(self) -> int:
        """Returns a time near a whole second: a difference of times is often a ttl, or one microsecond more or less."""
        return START + self.dice.randrange(8) * SECOND + self.dice.choice([0, 0, 0, 1, -1])

    def maybe(self, value: Any) -> Any:
        return None if self.dice.random() < NULLS else value

    def key_values(self, key: Key, rows: int) -> list[Any]:
        # Half of the values, so that an entity row often has feature rows.
        few = key.values[: len(key.values) // 2] if self.dice.random() < 0.5 else key.values
        return [self.maybe(self.dice.choice(few)) for _ in range(rows)]

    def times(self, rows: int, unit: str, zone: str | None) -> pa.Array:
        values = [self.maybe(self.time()) for _ in range(rows)]
        if unit == "ms":
            values = [None if value is None else value // 1_000 for value in values]
        elif unit == "ns":
            values = [None if value is None else value * 1_000 for value in values]
        return pa.array(values, pa.int64()).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))

    def write_rows(self, view: View, path: Path, rows: int) -> None:
        dice = self.dice
        unit, zone = dice.choice(["us", "us", "ms", "ns"]), dice.choice([None, "UTC", "+02:00"])
        columns = {
            name: pa.array(self.key_values(KEYS[name], rows), dice.choice(KEYS[name].stored)) for name in view.keys
        }
        columns["event time"] = self.times(rows, unit, zone)
        if view.has_created:
            columns["created time"] = self.times(rows, unit, zone)
        for name, of in view.features:
            columns[name] = feature_column([self.maybe(of.value(dice)) for _ in range(rows)], dice.choice(of.stored))
        names = list(columns)
        dice.shuffle(names)
        table = pa.table({name: columns[name] for name in names})
        pq.write_table(
            table,
            path,
            row_group_size=dice.choice([1, 7, 64, 1_000]),
            compression=dice.choice(["snappy", "none", "zstd"]),
            data_page_size=dice.choice([100, 1 << 20]),
        )

    def entity_rows(self, rows: int) -> dict[str, list[Any]]:
        """Returns the columns of the entity rows, with times in microseconds. Some rows are duplicates."""
        columns = {name: self.key_values(key, rows) for name, key in KEYS.items()}
        columns["event_timestamp"] = [self.maybe(self.time()) for _ in range(rows)]
        copies = [self.dice.randrange(rows) for _ in range(rows // 20)]
        for values in columns.values():
            values += [values[place] for place in copies]
        columns["row"] = list(range(rows + len(copies)))
        return columns


def feature_column(values: list[Any], of: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(of):
        return pa.array(values, pa.int64()).cast(pa.timestamp("us")).cast(of)
    if pa.types.is_dictionary(of):
        return pa.array(values, of.value_type).dictionary_encode().cast(of)
    return pa.array(values, of)
