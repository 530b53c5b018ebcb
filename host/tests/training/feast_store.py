"""Compares `larder training-set` with Feast's DuckDB offline store: edge cases one by one, and random views.

Feast's store picks the first row of equal event and created times, and Larder the last, as it does when it serves rows. So
the random views have no such rows.

Usage: feast_store.py LARDER DIR
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cases import KEYS, View, World
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType, types
from peers import KEY_TYPES, cells, feature_rows

STORE = """\
project: training
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""
NOON = datetime(2026, 1, 10, 12, tzinfo=timezone.utc)
HOUR, DAY, MICROSECOND = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
# For each key, its feature rows: event time, value, created time. All entity rows are at noon.
EDGES: dict[str, list[tuple[datetime, int | None, datetime | None]]] = {
    "created later, first in the file": [(NOON, 2, NOON + 2 * HOUR), (NOON, 1, NOON + HOUR)],
    "created later, last in the file": [(NOON, 1, NOON + HOUR), (NOON, 2, NOON + 2 * HOUR)],
    "equal times": [(NOON, 1, NOON), (NOON, 2, NOON)],
    "newest value is null": [(NOON - HOUR, 7, NOON), (NOON, None, NOON)],
    "at the bound of the ttl": [(NOON - DAY, 5, NOON)],
    "a microsecond older than the ttl": [(NOON - DAY - MICROSECOND, 5, NOON)],
    "at the time of the entity row": [(NOON, 6, NOON)],
    "a microsecond later than the entity row": [(NOON + MICROSECOND, 6, NOON)],
    "newer event, created earlier": [(NOON - HOUR, 1, NOON + 5 * HOUR), (NOON, 2, NOON - 5 * HOUR)],
    "one created time is null": [(NOON, 2, NOON), (NOON, 1, None)],
    "both created times are null": [(NOON, 1, None), (NOON, 2, None)],
    "large integer": [(NOON, 2**53 + 1, NOON)],
}
SEEDS = 3
SHOWN = 20
MICROS = pa.timestamp("us", "UTC")
EXPECTED = {
    "created later, first in the file": (2, 2),
    "created later, last in the file": (2, 2),
    "equal times": (2, 2),
    "newest value is null": (None, None),
    "at the bound of the ttl": (5, 5),
    "a microsecond older than the ttl": (None, 5),
    "at the time of the entity row": (6, 6),
    "a microsecond later than the entity row": (None, None),
    "newer event, created earlier": (2, 2),
    "one created time is null": (2, 2),
    "both created times are null": (2, 2),
    "large integer": (2**53 + 1, 2**53 + 1),
    "no feature row": (None, None),
}
"""The values with a ttl of a day, and without a ttl."""
FEAST_DIFFERS = {"equal times": (1, 1), "both created times are null": (1, 1)}
"""Feast's values, where they are not Larder's."""
FEAST_TYPES = {
    **{name: getattr(types, name) for name in ("Int64", "Int32", "Float64", "Float32", "Bool", "String", "Bytes")},
    **{f"Array({item})": types.Array(getattr(types, item)) for item in ("Int64", "Float64", "Float32", "String", "Bool")},
    "UnixTimestamp": types.UnixTimestamp,
}
VALUE_TYPES = {"String": ValueType.STRING, "Int64": ValueType.INT64, "Int32": ValueType.INT32, "Bytes": ValueType.BYTES}


class Comparison:
    def __init__(self, larder: str) -> None:
        self.larder = larder
        self.compared = 0
        self.wrong: list[str] = []

    def compare(self, what: str, found: Any, expected: Any) -> None:
        self.compared += 1
        if found != expected:
            self.wrong.append(f"{what}: {found!r} instead of {expected!r}")

    def training_set(self, directory: Path) -> pa.Table:
        """Joins `entities.parquet` with the service `all`."""
        command = [self.larder, "training-set", "--entities", "entities.parquet", "--out", "set.parquet"]
        command += ["--service", "all", "--full-feature-names"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return pq.read_table(directory / "set.parquet")

    def edges(self, directory: Path) -> None:
        (directory / "features").mkdir(parents=True)
        rows = [(key, *row) for key, of_key in EDGES.items() for row in of_key]
        columns = {name: [row[place] for row in rows] for place, name in enumerate(("k", "event_timestamp", "v", "created"))}
        types_of = {"k": pa.string(), "v": pa.int64(), "event_timestamp": MICROS, "created": MICROS}
        table = pa.table({name: pa.array(values, types_of[name]) for name, values in columns.items()})
        pq.write_table(table, directory / "rows.parquet")
        entities = pa.table({"k": list(EXPECTED), "event_timestamp": pa.array([NOON] * len(EXPECTED), MICROS)})
        pq.write_table(entities, directory / "entities.parquet")
        ttls = {"day": DAY, "unlimited": timedelta(0)}
        source = {"path": "rows.parquet", "created_timestamp_column": "created"}
        features = [{"name": "v", "type": "Int64"}]
        views = [
            {"name": name, "entities": ["k"], "ttl": f"{ttl // HOUR}h", "source": source, "features": features}
            for name, ttl in ttls.items()
        ]
        write_definitions(directory, views)
        entity = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
        schema = [Field(name="k", dtype=types.String), Field(name="v", dtype=types.Int64)]
        source = FileSource(
            name="rows",
            path=str(directory / "rows.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        feast_views = [
            FeatureView(name=name, entities=[entity], ttl=ttl, source=source, schema=schema) for name, ttl in ttls.items()
        ]
        theirs = feast_set(directory, [entity, *feast_views], entities.to_pandas())
        ours = self.training_set(directory)
        for key in EXPECTED:
            place = list(EXPECTED).index(key)
            found = tuple(ours[f"{view}__v"][place].as_py() for view in ttls)
            self.compare(f"Larder, {key}", found, EXPECTED[key])
            of_feast = theirs.filter(pc.equal(theirs["k"], key))
            found = tuple(of_feast[f"{view}__v"].to_pylist() for view in ttls)
            self.compare(f"Feast, {key}", found, tuple([value] for value in FEAST_DIFFERS.get(key, EXPECTED[key])))

    def random_views(self, directory: Path, seed: int) -> None:
        world = World(directory, seed, 8, 300)
        world.views = [view for view in world.views if view.keys]
        for view in world.views:
            rows = without_ties(view)
            for file in view.files:
                file.unlink()
            view.has_created = True
            view.files = [view.path / "rows.parquet"]
            pq.write_table(rows, view.files[0])
        write_definitions(directory, [view.definition() for view in world.views])
        entities = self.entities(world)
        pq.write_table(entities, directory / "entities.parquet")
        join_keys = {
            name: Entity(name=name, join_keys=[name], value_type=VALUE_TYPES[key.declared]) for name, key in KEYS.items()
        }
        views = [feast_view(view, join_keys) for view in world.views]
        theirs = feast_set(directory, [*join_keys.values(), *views], entities.to_pandas())
        theirs = theirs.sort_by("row")
        ours = self.training_set(directory)
        for view in world.views:
            names = {name: f"{view.name}__{name}" for name, _ in view.features}
            found, expected = (
                cells(view, pa.table({name: rows[full] for name, full in names.items()})) for rows in (ours, theirs)
            )
            for name in names:
                self.compare(f"seed {seed}, {view.name} by {view.keys}, {name}", found[name], expected[name])

    def entities(self, world: World) -> pa.Table:
        """Returns the entity rows that have all keys and a time."""
        arrays = {name: pa.array(world.entities[name], KEY_TYPES[key.declared]) for name, key in KEYS.items()}
        times = pa.array(world.entities["event_timestamp"], pa.int64()).cast(pa.timestamp("us")).cast(MICROS)
        rows = pa.table(arrays | {"event_timestamp": times}).drop_null()
        return rows.append_column("row", pa.array(range(len(rows)), pa.int64()))


def without_ties(view: View) -> pa.Table:
    """Returns the rows of a view that have keys and times, without rows of equal keys and times."""
    rows = feature_rows(view)
    group = [*view.keys, "event", "created"]
    for name in (*view.keys, "event"):
        rows = rows.filter(pc.is_valid(rows[name]))
    kept = rows.group_by(group).aggregate([("arrival", "max")])["arrival_max"]
    rows = rows.filter(pc.is_in(rows["arrival"], value_set=kept.combine_chunks()))
    for name, source in (("event time", "event"), ("created time", "created")):
        micros = pc.divide(rows[source], 1_000)
        rows = rows.append_column(name, micros.cast(pa.timestamp("us")).cast(MICROS))
    return rows.drop_columns(["event", "created", "arrival"])


def write_definitions(directory: Path, views: list[dict[str, Any]]) -> None:
    """Writes the configuration for Larder, with the service `all`, and that for Feast."""
    keys = sorted({key for view in views for key in view["entities"]})
    definitions = {
        "entities": [{"name": key, "type": KEYS[key].declared if key in KEYS else "String"} for key in keys],
        "feature_views": views,
        "feature_services": [{"name": "all", "features": [view["name"] for view in views]}],
    }
    # JSON is also YAML.
    (directory / "features" / "views.yaml").write_text(json.dumps(definitions))
    (directory / "larder.yaml").write_text("naming_warnings: false\n")
    (directory / "feature_store.yaml").write_text(STORE)


def feast_view(view: View, join_keys: dict[str, Entity]) -> FeatureView:
    source = FileSource(
        name=f"source of {view.name}",
        path=str(view.files[0]),
        timestamp_field="event time",
        created_timestamp_column="created time",
    )
    schema = [Field(name=key, dtype=FEAST_TYPES[KEYS[key].declared]) for key in view.keys]
    schema += [Field(name=name, dtype=FEAST_TYPES[of.declared]) for name, of in view.features]
    entities = [join_keys[key] for key in view.keys]
    return FeatureView(
        name=view.name, entities=entities, ttl=timedelta(microseconds=view.ttl), source=source, schema=schema
    )


def feast_set(directory: Path, objects: list[Any], entities: pd.DataFrame) -> pa.Table:
    """Joins entity rows with all views by Feast."""
    store = FeatureStore(str(directory))
    store.apply(objects)
    views = [view for view in objects if isinstance(view, FeatureView)]
    service = FeatureService(name="all", features=views)
    store.apply([service])
    return store.get_historical_features(entities, service, full_feature_names=True).to_arrow()


def main() -> None:
    comparison, directory = Comparison(sys.argv[1]), Path(sys.argv[2])
    comparison.edges(directory / "edges")
    for seed in range(SEEDS):
        comparison.random_views(directory / str(seed), seed)
    print(f"{comparison.compared} values, {len(comparison.wrong)} of them differ")
    for wrong in comparison.wrong[:SHOWN]:
        print(wrong[:2_000])
    sys.exit(1 if comparison.wrong else 0)


if __name__ == "__main__":
    main()
