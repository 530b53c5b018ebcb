"""Joins a view with entity rows by other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
from cases import KEYS, View
from values import TYPES, bits, column, served

KEY_TYPES = {"String": pa.string(), "Int64": pa.int64(), "Int32": pa.int32(), "Bytes": pa.binary()}
NANOS = pa.timestamp("ns", "UTC")
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")


def by_sql(view: View, entities: Path, known_at: str, ttl: str) -> dict[str, list[Any]]:
    """Returns the bits of the features and the event times in microseconds, in the order of the entity rows, by the complete
    rule in SQL. DuckDB's ASOF JOIN has neither a ttl nor a rule for ties."""
    keys = " AND ".join(f'e."{key}" = f."{key}"' for key in view.keys) or "TRUE"
    created = 'epoch_ns("created time")' if view.has_created else "NULL::BIGINT"
    visible = "f.event <= e.time"
    if known_at == "created":
        visible += " AND (f.created IS NULL OR f.created <= e.time)"
    is_valid = "TRUE" if ttl == "ignore" or view.ttl == 0 else f"event >= time - {view.ttl * 1_000}"
    features = ", ".join(f'f."{name}"' for name, _ in view.features)
    values = ", ".join(f'CASE WHEN {is_valid} THEN "{name}" END AS "{name}"' for name, _ in view.features)
    query = f"""
        WITH f AS (
            SELECT *, epoch_ns("event time") AS event, {created} AS created
            FROM read_parquet($files, union_by_name = true, filename = true, file_row_number = true,
                hive_partitioning = false)
        ), e AS (SELECT *, epoch_ns(event_timestamp) AS time FROM '{entities}'), found AS (
            SELECT e.row, e.time, f.event, {features}, row_number() OVER (
                PARTITION BY e.row
                ORDER BY f.event DESC, f.created DESC NULLS LAST, f.filename DESC, f.file_row_number DESC
            ) AS place
            FROM e JOIN f ON {keys} AND {visible}
        )
        SELECT {values}, event // 1_000 AS "event time"
        FROM '{entities}' e LEFT JOIN found ON e.row = found.row AND place = 1 ORDER BY e.row
    """
    files = [str(file) for file in view.files]
    rows = connection.sql(query, params={"files": files}).to_arrow_table()
    return cells(view, rows) | {"event time": rows["event time"].to_pylist()}


def by_polars(view: View, entities: Path, ttl: str) -> dict[str, list[Any]]:
    """Returns the bits of the features, in the order of the entity rows, by `join_asof`. polars has no rule for ties, so
    only the best row of each tie is kept. Rows without a key or a time are left out: polars would match them with each
    other."""
    time = polars.from_arrow(nanos(pq.read_table(entities)["event_timestamp"]).cast(pa.int64()))
    rows = polars.read_parquet(entities).select("row", *view.keys).with_columns(time.alias("event"))
    known = rows.drop_nulls([*view.keys, "event"]).sort("event")
    features = polars.from_arrow(feature_rows(view)).drop_nulls([*view.keys, "event"])
    features = features.sort("event", "created", "arrival", nulls_last=False)
    features = features.unique([*view.keys, "event"], keep="last", maintain_order=True).drop("created", "arrival")
    tolerance = None if ttl == "ignore" or view.ttl == 0 else view.ttl * 1_000
    by = view.keys or None
    joined = known.join_asof(features, on="event", by=by, tolerance=tolerance, check_sortedness=False)
    names = [name for name, _ in view.features]
    return cells(view, rows.select("row").join(joined, on="row", how="left").sort("row").select(names).to_arrow())


def feature_rows(view: View) -> pa.Table:
    """Returns the rows of a view's files in their order: the keys and features in their declared types, the columns `event`
    and `created` in nanoseconds since 1970, and `arrival`."""
    tables = []
    for file in view.files:
        rows = pq.ParquetFile(file).read()
        columns = {key: plain(rows[key]).cast(KEY_TYPES[KEYS[key].declared]) for key in view.keys}
        columns |= {name: plain(rows[name]).cast(TYPES[of.declared]) for name, of in view.features}
        columns["event"] = nanos(rows["event time"]).cast(pa.int64())
        created = nanos(rows["created time"]).cast(pa.int64()) if view.has_created else pa.nulls(len(rows), pa.int64())
        tables.append(pa.table(columns | {"created": created}))
    rows = pa.concat_tables(tables)
    return rows.append_column("arrival", pa.array(range(len(rows)), pa.int64()))


def nanos(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns instants in nanoseconds. Times without a zone are UTC."""
    return times.cast(pa.timestamp("ns", times.type.tz)).cast(NANOS)


def plain(array: pa.ChunkedArray) -> pa.ChunkedArray:
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def cells(view: View, rows: pa.Table) -> dict[str, list[Any]]:
    """Returns the bits of the values that Larder serves for these values of files."""
    found = {}
    for name, of in view.features:
        values = rows[name].cast(TYPES[of.declared]).combine_chunks()
        if pa.types.is_timestamp(values.type):
            found[name] = column(pa.chunked_array([values]))
        else:
            found[name] = [bits(served(of.declared, value)) for value in values.to_pylist()]
    return found
