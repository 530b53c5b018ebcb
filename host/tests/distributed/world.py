"""Projects and entity rows for the tests on Spark and Ray, and the comparison of training sets."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

# The random views of `compare.py`.
sys.path.append(str(Path(__file__).parents[1] / "training"))
from cases import KEYS, World  # noqa: E402
from values import TYPES  # noqa: E402

PROGRAM = os.environ["LARDER_TEST_PROGRAM"]
PLUGINS = Path(os.environ["LARDER_TEST_PLUGINS"])
CHURN = Path(__file__).parents[3] / "plugins/built/churn.wasm"
CUSTOMERS = 200
SECOND = timedelta(seconds=1)
START = datetime(2026, 3, 8, 6, 59, 50, tzinfo=timezone.utc)
"""Shortly before clocks in New York go forward."""

# A view with several keys, whose texts run together, a view without entities, and derived views: one that returns the time
# of its row, and one whose values depend on the other rows of the batch.
DEFINITIONS = """
entities:
  - {name: left, join_key: left, type: String}
  - {name: right, join_key: right.id, type: String}
  - {name: account, join_key: account, type: Int64}
feature_views:
  - name: pairs
    entities: [left, right]
    ttl: 10s
    source: {path: pairs.parquet, timestamp_field: at, created_timestamp_column: created}
    features: [{name: x, type: Float64}, {name: large, type: Int64}, {name: at_ns, type: UnixTimestamp}]
  - name: accounts
    entities: [account]
    source: {path: accounts.parquet, timestamp_field: at}
    features: [{name: x2, type: Float64}, {name: names, type: Array(String)}]
  - name: rates
    source: {path: rates.parquet, timestamp_field: at}
    features: [{name: rate, type: Float64}]
derived_views:
  - name: timed
    plugin: hostile
    inputs: [{name: x, from: "pairs:x"}]
    features: [{name: text, type: String}]
    config: {mode: good}
  - name: timed_account
    plugin: hostile
    inputs: [{name: x, from: "accounts:x2"}]
    features: [{name: y, type: Float64}]
    config: {mode: good}
  - name: counted
    plugin: hostile
    inputs: [{name: x, from: "pairs:x"}]
    features: [{name: y, type: Float64}]
    config: {mode: batch_size}
feature_services:
  - {name: all, features: [pairs, accounts, rates, timed]}
"""
FEATURES = ["pairs:x", "pairs:large", "pairs:at_ns", "accounts:x2", "accounts:names", "rates:rate"]
TIMED = ["timed:text", "timed_account:y"]


def directory() -> Path:
    """Creates a directory that is removed at the end of the process."""
    path = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def project(directory: Path) -> Path:
    """Writes a project with the definitions above. Returns the path of its configuration."""
    (directory / "features").mkdir(parents=True)
    (directory / "plugins").mkdir()
    (directory / "features/all.yaml").write_text(DEFINITIONS)
    (directory / "larder.yaml").write_text("naming_warnings: false\n")
    shutil.copy(PLUGINS / "hostile.wasm", directory / "plugins/hostile.wasm")
    dice = random.Random(1)
    rows = 300
    at = [START + dice.randrange(40) * SECOND for _ in range(rows)]
    pairs = {
        "left": pa.array([dice.choice(["1", "12", "", None]) for _ in range(rows)], pa.string()),
        "right.id": pa.array([dice.choice(["23", "3", ""]) for _ in range(rows)], pa.string()),
        "at": pa.array(at, pa.timestamp("ns", "UTC")),
        "created": pa.array([time + dice.choice([-1, 0, 1]) * SECOND for time in at], pa.timestamp("ns", "UTC")),
        "x": pa.array([dice.choice([0.1, -0.0, float("inf"), None]) for _ in range(rows)], pa.float64()),
        "large": pa.array([dice.choice([2**53 + 1, -(2**63), None]) for _ in range(rows)], pa.int64()),
        "at_ns": pa.array([None if dice.random() < 0.2 else time for time in at], pa.timestamp("us", "UTC")),
    }
    pa.parquet.write_table(pa.table(pairs), directory / "pairs.parquet", row_group_size=37)
    accounts = {
        "account": pa.array([dice.choice([1, 2**53 + 1, 2**53]) for _ in range(rows)], pa.int64()),
        "at": pa.array(at, pa.timestamp("ms", "Asia/Tokyo")),
        "x2": pa.array([dice.random() for _ in range(rows)], pa.float64()),
        "names": pa.array([dice.choice([[], ["a", None], None, ["ä", "ab"]]) for _ in range(rows)], pa.list_(pa.string())),
    }
    pa.parquet.write_table(pa.table(accounts), directory / "accounts.parquet", row_group_size=50)
    rates = {"at": pa.array(at[:20], pa.timestamp("us")), "rate": pa.array([dice.random() for _ in range(20)])}
    pa.parquet.write_table(pa.table(rates), directory / "rates.parquet")
    return directory / "larder.yaml"


def entity_rows(rows: int = 400) -> pa.Table:
    """Returns entity rows of the project: with nulls, duplicates, and columns of many types.

    Spark cannot resolve some names of columns: those with dots or backticks, and those that differ only in case.
    """
    dice = random.Random(2)
    times = [START + timedelta(microseconds=dice.choice([0, 1, -1])) + dice.randrange(45) * SECOND for _ in range(rows)]
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int32()),
            "left": pa.array([dice.choice(["1", "12", "", None, "?"]) for _ in range(rows)], pa.string()),
            "right.id": pa.array([dice.choice(["23", "3", "", None]) for _ in range(rows)], pa.string()),
            "account": pa.array([dice.choice([1, 2**53 + 1, 2**53, None]) for _ in range(rows)], pa.int64()),
            "event_timestamp": pa.array([dice.choice([time, time, time, None]) for time in times], pa.timestamp("us", "UTC")),
            "label": pa.array([dice.choice([float("nan"), -0.0, 1e300, None]) for _ in range(rows)], pa.float64()),
            "naive": pa.array([time.replace(tzinfo=None) for time in times], pa.timestamp("us")),
            "Row": pa.array(range(rows), pa.int64()),
            "a`b.c": pa.array(range(rows), pa.int64()),
            "__LARDER_bucket": pa.array(range(rows), pa.int64()),
            "day": pa.array([date(1900, 1, 1), None] * (rows // 2), pa.date32()),
            "price": pa.array([Decimal("1.50"), None] * (rows // 2), pa.decimal128(10, 2)),
            "raw": pa.array([b"\x00\xff", b""] * (rows // 2), pa.binary()),
            "nested": pa.array(
                [{"at": time, "list": [1, None]} for time in times],
                pa.struct([("at", pa.timestamp("us", "UTC")), ("list", pa.list_(pa.int16()))]),
            ),
            "map": pa.array([[("a", time)] for time in times], pa.map_(pa.string(), pa.timestamp("us", "UTC"))),
        }
    )


@functools.cache
def churn() -> Path:
    """Generates the data of the demo. Returns the path of its configuration."""
    at = directory()
    command = [PROGRAM, "demo", "--dir", str(at), "--customers", str(CUSTOMERS), "--listen", "127.0.0.1:0"]
    command += ["--plugin", str(CHURN)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
    environment["LARDER_METRICS_LISTEN"] = "off"
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Serving on "):
            break
    else:
        raise AssertionError("".join(lines))
    process.terminate()
    process.communicate()
    return at / "larder.yaml"


def churn_rows() -> pa.Table:
    dice = random.Random(3)
    now = datetime.now(timezone.utc)
    customers = [f"CUST_{dice.randrange(1, CUSTOMERS + 20):06}" for _ in range(500)]
    return pa.table(
        {
            "customer_id": pa.array(customers),
            "event_timestamp": pa.array(
                [now - timedelta(hours=dice.randrange(24 * 90)) for _ in customers], pa.timestamp("us", "UTC")
            ),
            "discount_percent": pa.array([dice.choice([None, 0.0, 12.5]) for _ in customers], pa.float64()),
            "row": pa.array(range(len(customers)), pa.int64()),
        }
    )


def random_views(directory: Path, seed: int) -> tuple[Path, pa.Table]:
    """Writes random views. Returns the path of the configuration, and entity rows."""
    world = World(directory, seed, 8, 300)
    columns = {name: pa.array(world.entities[name], TYPES[key.declared]) for name, key in KEYS.items()}
    times = pa.array(world.entities["event_timestamp"], pa.int64()).cast(pa.timestamp("us", "UTC"))
    columns |= {"event_timestamp": times, "row": pa.array(world.entities["row"], pa.int64())}
    return directory / "larder.yaml", pa.table(columns)


def digest(rows: pa.Table) -> str:
    """Returns a digest of the rows, in the order of the column `row`: of the bits of all values, of their types and names.

    The zone of a time is not in the digest, because Spark returns all times in the zone of the session.
    """
    rows = rows.sort_by("row")
    found = hashlib.sha256()
    for name, column in zip(rows.column_names, rows.columns):
        found.update(f"{name}: {type_name(column.type)}\n".encode())
        for value in in_micros(column).to_pylist():
            found.update(repr(exact(value)).encode() + b"\n")
    return found.hexdigest()


def type_name(of: pa.DataType) -> str:
    if pa.types.is_timestamp(of):
        return f"timestamp {of.unit} {of.tz is not None}"
    if pa.types.is_struct(of):
        return "struct " + ", ".join(f"{field.name}: {type_name(field.type)}" for field in of)
    if pa.types.is_map(of):
        return f"map {type_name(of.key_type)}, {type_name(of.item_type)}"
    return f"list {type_name(of.value_type)}" if pa.types.is_list(of) else str(of)


def in_micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Converts times to integers, because Python's times have no nanoseconds."""
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def exact(value: Any) -> Any:
    """Returns a value whose text has all of its bits."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return value
