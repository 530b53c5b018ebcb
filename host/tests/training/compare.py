"""Compares `larder training-set` with DuckDB and polars, over random views and entity rows.

Usage: compare.py LARDER DIR
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
from cases import KEYS, World
from peers import KEY_TYPES, by_polars, by_sql
from values import TYPES, column

VIEWS = 16
ENTITY_ROWS = 300
SHOWN = 20


def with_pyarrow(unit: str, zone: str | None) -> Callable[[dict[str, list[Any]], Path], None]:
    def write(columns: dict[str, list[Any]], path: Path) -> None:
        pq.write_table(arrow_table(columns, unit, zone), path, row_group_size=50)

    return write


def with_polars(columns: dict[str, list[Any]], path: Path) -> None:
    polars.from_arrow(arrow_table(columns, "us", "UTC")).write_parquet(path)


def with_duckdb(columns: dict[str, list[Any]], path: Path) -> None:
    rows = arrow_table(columns, "us", None)
    duckdb.sql("SELECT * FROM rows").write_parquet(str(path), row_group_size=2_048)


def with_pandas(columns: dict[str, list[Any]], path: Path) -> None:
    # Integers with nulls become doubles. Only integers that a double can represent survive that.
    numbers = [None if value is None or abs(value) >= 2**53 else value for value in columns["number"]]
    arrow_table(columns | {"number": numbers}, "ns", None).to_pandas().to_parquet(path)


def arrow_table(columns: dict[str, list[Any]], unit: str, zone: str | None) -> pa.Table:
    arrays = {name: pa.array(columns[name], KEY_TYPES[key.declared]) for name, key in KEYS.items()}
    scale = {"ms": lambda time: time // 1_000, "us": lambda time: time, "ns": lambda time: time * 1_000}[unit]
    times = [None if time is None else scale(time) for time in columns["event_timestamp"]]
    arrays["event_timestamp"] = pa.array(times, pa.int64()).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    return pa.table(arrays | {"row": pa.array(columns["row"], pa.int64())})


RUNS = [
    ("pyarrow, us, UTC", with_pyarrow("us", "UTC"), "event", "null"),
    ("pyarrow, us", with_pyarrow("us", None), "created", "null"),
    ("pyarrow, ms, +02:00", with_pyarrow("ms", "+02:00"), "event", "ignore"),
    ("pyarrow, ns, Europe/Berlin", with_pyarrow("ns", "Europe/Berlin"), "created", "ignore"),
    ("polars", with_polars, "event", "null"),
    ("DuckDB", with_duckdb, "event", "null"),
    ("pandas", with_pandas, "created", "null"),
]


class Comparison:
    def __init__(self, larder: str, directory: Path) -> None:
        self.larder, self.directory = larder, directory
        self.compared = 0
        self.wrong: list[str] = []

    def compare(self, what: str, found: list[Any], expected: list[Any]) -> None:
        self.compared += len(expected)
        if len(found) != len(expected):
            self.wrong.append(f"{what}: {len(found)} rows instead of {len(expected)}")
        for row, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
            if ours != theirs:
                self.wrong.append(f"{what}, row {row}: {ours!r} instead of {theirs!r}")

    def run(self, seed: int) -> None:
        name, write, known_at, ttl = RUNS[seed % len(RUNS)]
        world = World(self.directory / str(seed), seed, VIEWS, ENTITY_ROWS)
        entities, out = world.directory / "entities.parquet", world.directory / "set.parquet"
        write(world.entities, entities)
        command = [self.larder, "training-set", "--entities", entities, "--out", out, "--service", "all"]
        command += ["--full-feature-names", "--known-at", known_at, "--ttl", ttl]
        # With `null`, the event time of an expired row is not part of the rule.
        has_event_times = ttl == "ignore"
        command += ["--event-timestamps"] if has_event_times else []
        done = subprocess.run(command, cwd=world.directory, capture_output=True, text=True)
        what = f"seed {seed} ({name}, known at {known_at}, ttl {ttl})"
        if done.returncode != 0:
            self.wrong.append(f"{what}: {done.stdout}{done.stderr}")
            return
        rows, before = pq.read_table(out), pq.read_table(entities)
        for place, field in enumerate(before.schema):
            after = rows.schema.field(place)
            self.compare(f"{what}, field {place}", [(after.name, after.type)], [(field.name, field.type)])
            self.compare(f"{what}, {field.name}", column(rows[place]), column(before[place]))
        fields: list[tuple[str, pa.DataType]] = []
        for view in world.views:
            for name, of in view.features:
                full = f"{view.name}__{name}"
                fields.append((full, TYPES[of.declared]))
                if has_event_times:
                    fields.append((f"{full}__event_timestamp", TYPES["UnixTimestamp"]))
        found = [(field.name, field.type) for field in rows.schema][len(before.schema) :]
        self.compare(f"{what}, columns", found, fields)
        for view in world.views:
            engines = {"SQL": by_sql(view, entities, known_at, ttl)}
            if known_at == "event":
                engines["polars"] = by_polars(view, entities, ttl)
            for engine, expected in engines.items():
                event_times = expected.pop("event time", None)
                if has_event_times and event_times is not None:
                    expected[f"{view.features[0][0]}__event_timestamp"] = event_times
                for name, values in expected.items():
                    found = column(rows[f"{view.name}__{name}"])
                    self.compare(f"{what}, {engine}, {view.name} by {view.keys}, {name}", found, values)


def main() -> None:
    comparison = Comparison(sys.argv[1], Path(sys.argv[2]))
    for seed in range(len(RUNS)):
        comparison.run(seed)
    print(f"{comparison.compared} values, {len(comparison.wrong)} of them differ")
    for wrong in comparison.wrong[:SHOWN]:
        print(wrong)
    sys.exit(1 if comparison.wrong else 0)


if __name__ == "__main__":
    main()
