"""Writes the workload of the training benchmark: entity rows, the files of three views, and their definitions.

Usage: workload.py DIR ENTITY_ROWS IDS SNAPSHOTS

* `entities.parquet` has ENTITY_ROWS rows in random order: an ID of IDS, a time within 33 days, and the number of the row.
* `view_0` to `view_2` have one file each, with SNAPSHOTS rows for each ID in the order of their event times. Each snapshot
  covers an equal part of the 33 days, and is created an hour after its end. A row has five doubles.
* `larder.yaml` and `features/views.yaml` are Larder's definitions, and `feast` has the same views for Feast.

A directory that already has the workload stays as it is.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from names import FEATURES, TTL_DAYS, VIEWS, feature_names, view_path

DAYS = 33
SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_790_000_000 * SECOND
"""The earliest event time, in microseconds."""
TIME = pa.timestamp("us", tz="UTC")

DEFINITIONS = """\
entities:
  - {name: customer_id, type: String}
feature_views:
"""
VIEW = """\
  - name: view_{view}
    entities: [customer_id]
    ttl: {ttl}d
    source: {{path: view_{view}, timestamp_field: event_timestamp, created_timestamp_column: created}}
    features:
"""
FEAST_STORE = """\
project: training
provider: local
registry: registry.db
online_store: {{type: sqlite, path: online.db}}
offline_store: {{type: {store}}}
entity_key_serialization_version: 3
"""


def write(directory: Path, entity_rows: int, ids: int, snapshots: int) -> None:
    size = json.dumps({"entity_rows": entity_rows, "ids": ids, "snapshots": snapshots})
    marker = directory / "workload.json"
    if marker.exists() and marker.read_text() == size:
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    names = pa.array([f"CUST_{number:06}" for number in range(ids)])
    write_entities(directory / "entities.parquet", entity_rows, names)
    for view in range(VIEWS):
        write_view(directory, view, names, snapshots)
    write_definitions(directory)
    for store in ("duckdb", "file"):
        write_feast(directory, store)
    marker.write_text(size)


def write_entities(path: Path, rows: int, names: pa.Array) -> None:
    random = np.random.default_rng(0)
    times = random.integers(START, START + DAYS * DAY, rows)
    table = pa.table(
        {
            "customer_id": names.take(pa.array(random.integers(0, len(names), rows))),
            "event_timestamp": pa.array(times).cast(pa.timestamp("us")).cast(TIME),
            "row": pa.array(np.arange(rows)),
        }
    )
    pq.write_table(table, path, compression="snappy")


def write_view(directory: Path, view: int, names: pa.Array, snapshots: int) -> None:
    random = np.random.default_rng(1 + view)
    rows = len(names)
    columns = [("customer_id", pa.string()), ("event_timestamp", TIME), ("created", TIME)]
    schema = pa.schema(columns + [(name, pa.float64()) for name in feature_names(view)])
    (directory / f"view_{view}").mkdir()
    length = DAYS * DAY // snapshots
    with pq.ParquetWriter(view_path(directory, view), schema, compression="snappy") as file:
        for snapshot in range(snapshots):
            start = START + snapshot * length
            events = np.sort(random.integers(start, start + length, rows))
            created = np.full(rows, start + length + 3_600 * SECOND)
            features = [pa.array(random.random(rows)) for _ in range(FEATURES)]
            times = [pa.array(values).cast(pa.timestamp("us")).cast(TIME) for values in (events, created)]
            # Each snapshot is a row group.
            file.write_table(pa.table([names.take(pa.array(random.permutation(rows))), *times, *features], schema=schema))


def write_definitions(directory: Path) -> None:
    text = DEFINITIONS
    for view in range(VIEWS):
        text += VIEW.format(view=view, ttl=TTL_DAYS)
        text += "".join(f"      - {{name: {name}, type: Float64}}\n" for name in feature_names(view))
    views = ", ".join(f"view_{view}" for view in range(VIEWS))
    text += f"feature_services:\n  - {{name: training, features: [{views}]}}\n"
    (directory / "features").mkdir()
    (directory / "features" / "views.yaml").write_text(text)
    (directory / "larder.yaml").write_text("naming_warnings: false\n")


def write_feast(directory: Path, store: str) -> None:
    """Applies the views to a Feast repository with this offline store."""
    from datetime import timedelta

    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, String

    repository = directory / f"feast_{store}"
    repository.mkdir()
    (repository / "feature_store.yaml").write_text(FEAST_STORE.format(store=store))
    entity = Entity(name="customer_id", join_keys=["customer_id"], value_type=ValueType.STRING)
    views = []
    for view in range(VIEWS):
        source = FileSource(
            name=f"source_{view}",
            path=str(view_path(directory, view).resolve()),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        schema = [Field(name="customer_id", dtype=String)]
        schema += [Field(name=name, dtype=Float64) for name in feature_names(view)]
        ttl = timedelta(days=TTL_DAYS)
        views.append(FeatureView(name=f"view_{view}", entities=[entity], ttl=ttl, source=source, schema=schema))
    FeatureStore(str(repository)).apply([entity, *views, FeatureService(name="training", features=views)])


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))
