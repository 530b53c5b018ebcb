"""Compares `larder.feast.LarderOfflineStore` with Feast's DuckDB store, through Feast's own interface.

Both stores serve the same repository: features by reference, on-demand features, full names, a service with an alias and other
join keys, saved datasets and materialization.

Usage: feast_offline_store.py LARDER DIR
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String

STORE = """\
project: training
provider: local
registry: registry.db
online_store: {{type: sqlite, path: online.db}}
offline_store: {{type: {store}}}
entity_key_serialization_version: 3
"""
LARDER = "larder.feast.LarderOfflineStore"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
LARGE = 2**53 + 1
Job = Callable[[FeatureStore, pd.DataFrame], pa.Table]
QUERIES: dict[str, Job] = {
    "references": lambda store, rows: store.get_historical_features(
        rows, ["stats:rate", "stats:trips", "stats:name", "stats:items"]
    ).to_arrow(),
    "on-demand": lambda store, rows: store.get_historical_features(rows, ["stats:rate", "twice:rate_twice"]).to_arrow(),
    "full names": lambda store, rows: store.get_historical_features(
        rows, ["stats:rate"], full_feature_names=True
    ).to_arrow(),
    "service": lambda store, rows: store.get_historical_features(
        rows, store.get_feature_service("service"), full_feature_names=True
    ).to_arrow(),
}


def times(random: np.random.Generator, count: int, minutes: int) -> pd.Series:
    return pd.Series(pd.Timestamp(START) + pd.to_timedelta(random.integers(0, minutes, count), unit="m"))


def apply(directory: Path, random: np.random.Generator) -> None:
    count = 300
    rows = pd.DataFrame(
        {
            "driver_id": random.integers(0, 10, count),
            "at": times(random, count, 5_000),
            "created": times(random, count, 6_000),
            "rate": random.random(count),
            "trips": random.integers(LARGE, LARGE + 1_000, count),
            "name": [f"name {row}" for row in range(count)],
            "items": [[float(row), 0.5] for row in range(count)],
        }
    )
    # Feast's store returns the first of rows with equal times, and Larder the last.
    rows.drop_duplicates(["driver_id", "at"]).to_parquet(directory / "stats.parquet")
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(
        path=str(directory / "stats.parquet"), timestamp_field="at", created_timestamp_column="created"
    )
    schema = [("driver_id", Int64), ("rate", Float64), ("trips", Int64), ("name", String), ("items", Array(Float64))]
    view = FeatureView(
        name="stats",
        entities=[driver],
        ttl=timedelta(hours=10),
        schema=[Field(name=name, dtype=dtype) for name, dtype in schema],
        source=source,
    )

    @on_demand_feature_view(sources=[view], schema=[Field(name="rate_twice", dtype=Float64)])
    def twice(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"rate_twice": inputs["rate"] * 2})

    other = view[["rate", "name"]].with_name("other").with_join_key_map({"driver_id": "other_id"})
    service = FeatureService(name="service", features=[other])
    # The same feature rows with another key.
    pd.read_parquet(directory / "stats.parquet").rename(columns={"driver_id": "other_id"}).to_parquet(directory / "others.parquet")
    other_driver = Entity(name="other_driver", join_keys=["other_id"], value_type=ValueType.INT64)
    others = FeatureView(
        name="others",
        entities=[other_driver],
        schema=[Field(name="other_id", dtype=Int64), Field(name="name", dtype=String)],
        source=FileSource(path=str(directory / "others.parquet"), timestamp_field="at"),
    )
    open_store(directory, "duckdb").apply([driver, source, view, twice, service, other_driver, others])


def open_store(directory: Path, kind: str) -> FeatureStore:
    (directory / "feature_store.yaml").write_text(STORE.format(store=kind))
    return FeatureStore(str(directory))


def check_range(store: FeatureStore, directory: Path) -> list[str]:
    """Retrieves features without entity rows. The result has the feature rows themselves, once for each view's key columns."""
    start, end = START + timedelta(hours=10), START + timedelta(hours=30)
    between = [pd.Timestamp(time) for time in (start, end)]
    stats = pd.read_parquet(directory / "stats.parquet")
    stats["at"] = pd.to_datetime(stats["at"], utc=True)
    # The bounds are inclusive. A time with parts of a minute is not in the data.
    inside = stats[(stats["at"] >= between[0]) & (stats["at"] <= between[1])].sort_values(["at", "driver_id"])
    options = {"entity_df": None, "start_date": start, "end_date": end}
    found = store.get_historical_features(features=["stats:trips", "stats:name"], **options).to_df()
    wrong = []
    if not 10 < len(inside) == len(found) < len(stats):
        wrong.append(f"range: {len(found)} rows instead of {len(inside)}")
    for ours, theirs in (("event_timestamp", "at"), ("driver_id", "driver_id"), ("trips", "trips"), ("name", "name")):
        if list(found[ours]) != list(inside[theirs]):
            wrong.append(f"range: {ours}")
    # The views have different keys.
    both = store.get_historical_features(features=["stats:name", "others:name"], full_feature_names=True, **options).to_df()
    for key, name in (("driver_id", "stats__name"), ("other_id", "others__name")):
        rows = both[both[key].notna()]
        if list(rows[name]) != list(inside["name"]) or both[both[key].isna()][name].notna().any():
            wrong.append(f"range of two views: {name}")
    return wrong


def main(directory: Path) -> int:
    random = np.random.default_rng(7)
    apply(directory, random)
    count = 100
    rows = pd.DataFrame(
        {
            "driver_id": random.integers(0, 12, count),
            "other_id": random.integers(0, 12, count),
            "event_timestamp": times(random, count, 6_000),
            "label": range(count),
        }
    )
    expected = {name: query(open_store(directory, "duckdb"), rows) for name, query in QUERIES.items()}
    store = open_store(directory, LARDER)
    values, wrong = 0, []
    for name, query in QUERIES.items():
        feast, larder = expected[name].sort_by("label"), query(store, rows)
        if larder["label"].to_pylist() != list(range(count)):
            wrong.append(f"{name}: the order of the rows")
        if feast.column_names != larder.column_names:
            wrong.append(f"{name}: {larder.column_names} instead of {feast.column_names}")
            continue
        for column in feast.column_names:
            pairs = list(zip(feast[column].to_pylist(), larder[column].to_pylist()))
            values += len(pairs)
            wrong.extend(f"{name}, {column}: {found!r} instead of {value!r}" for value, found in pairs if found != value)
    found = {name: larder.column(name).null_count for name in larder.column_names}
    if found["other__rate"] in (0, count):
        wrong.append("the test has no rows with and without a value")

    frame = store.get_historical_features(rows, ["stats:trips"]).to_df()
    if str(frame["trips"].dtype) != "Int64" or frame["trips"].dropna().min() < LARGE:
        wrong.append(f"to_df: {frame['trips'].dtype}, {frame['trips'].min()}")
    # A file and a directory. An overwritten dataset has no rows of the earlier one.
    for name in ("saved.parquet", "saved"):
        for _ in range(2):
            saved = store.create_saved_dataset(
                from_=store.get_historical_features(rows, ["stats:rate", "twice:rate_twice"]),
                name="saved",
                storage=SavedDatasetFileStorage(path=str(directory / name)),
                allow_overwrite=True,
            )
            if len(saved.to_df()) != count:
                wrong.append(f"the saved dataset {name} has {len(saved.to_df())} rows")
    try:
        store.get_historical_features(rows, ["stats:rate"]).persist(SavedDatasetFileStorage(path=str(directory / "saved")))
        wrong.append("a saved dataset is overwritten")
    except SavedDatasetLocationAlreadyExists:
        pass
    wrong.extend(check_range(store, directory))
    store.materialize(START, START + timedelta(days=5))
    if store.get_online_features(["stats:trips"], [{"driver_id": 1}]).to_dict()["trips"][0] < LARGE:
        wrong.append("materialization")
    for argument, words in ((7, "int"), ("SELECT 1", "str")):
        try:
            store.get_historical_features(argument, ["stats:rate"]).to_df()
            wrong.append(f"entity_df {argument!r} is no error")
        except Exception as error:  # noqa: BLE001
            if "needs a data frame of pandas" not in str(error) or words not in str(error):
                wrong.append(f"entity_df {argument!r}: {error!r}")
    print("\n".join(wrong[:20]))
    print(f"{values} values, {len(wrong)} of them differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[2])))
