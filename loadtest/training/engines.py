"""Joins the workload with another engine, from Parquet to Parquet. Each engine runs in its own process.

Usage: engines.py ENGINE DIR OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from names import TTL_DAYS, VIEWS, feature_names, view_path

KEY, TIME = "customer_id", "event_timestamp"


def valid_features(view: int) -> str:
    """SQL for the features of a view, which are null if the row is older than the ttl: ASOF JOIN has no limit of age."""
    is_valid = f"v{view}.{TIME} >= e.{TIME} - INTERVAL {TTL_DAYS} DAY"
    return ", ".join(f"CASE WHEN {is_valid} THEN v{view}.{name} END AS {name}" for name in feature_names(view))


def asof_join(directory: Path, view: int) -> str:
    path = view_path(directory, view)
    return f"ASOF LEFT JOIN '{path}' v{view} ON e.{KEY} = v{view}.{KEY} AND e.{TIME} >= v{view}.{TIME}"


def duckdb(directory: Path, out: Path) -> None:
    """Joins a view at a time."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    entities = f"'{directory}/entities.parquet'"
    for view in range(VIEWS):
        query = f"SELECT e.*, {valid_features(view)} FROM {entities} e {asof_join(directory, view)}"
        if view == VIEWS - 1:
            connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION snappy)")
        else:
            connection.execute(f"CREATE TABLE joined_{view} AS {query}")
        if view > 0:
            connection.execute(f"DROP TABLE joined_{view - 1}")
        entities = f"joined_{view}"


def duckdb_one_query(directory: Path, out: Path) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    features = ", ".join(valid_features(view) for view in range(VIEWS))
    joins = " ".join(asof_join(directory, view) for view in range(VIEWS))
    query = f"SELECT e.*, {features} FROM '{directory}/entities.parquet' e {joins}"
    connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION snappy)")


def polars(directory: Path, out: Path) -> None:
    import polars

    rows = polars.scan_parquet(directory / "entities.parquet").sort(TIME)
    for view in range(VIEWS):
        features = polars.scan_parquet(view_path(directory, view)).sort(TIME, "created").drop("created")
        # polars cannot check the order within the groups of `by`, and warns about it. Both sides are sorted above.
        rows = rows.join_asof(features, on=TIME, by=KEY, tolerance=f"{TTL_DAYS}d", check_sortedness=False)
    rows.collect().write_parquet(out, compression="snappy")


def pandas(directory: Path, out: Path) -> None:
    import pandas

    rows = pandas.read_parquet(directory / "entities.parquet").sort_values(TIME)
    for view in range(VIEWS):
        features = pandas.read_parquet(view_path(directory, view)).sort_values([TIME, "created"])
        features = features.drop(columns="created")
        rows = pandas.merge_asof(rows, features, on=TIME, by=KEY, tolerance=pandas.Timedelta(days=TTL_DAYS))
    rows.to_parquet(out, compression="snappy")


def feast(directory: Path, out: Path, store: str) -> None:
    import pandas
    import pyarrow.parquet
    from feast import FeatureStore

    repository = FeatureStore(str(directory / f"feast_{store}"))
    entities = pandas.read_parquet(directory / "entities.parquet")
    job = repository.get_historical_features(entities, repository.get_feature_service("training"))
    pyarrow.parquet.write_table(job.to_arrow(), out, compression="snappy")


ENGINES = {
    "duckdb": duckdb,
    "duckdb-one-query": duckdb_one_query,
    "polars": polars,
    "pandas": pandas,
    "feast-duckdb": lambda directory, out: feast(directory, out, "duckdb"),
    "feast-file": lambda directory, out: feast(directory, out, "file"),
}

if __name__ == "__main__":
    ENGINES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
