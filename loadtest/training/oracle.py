"""Compares the output of an engine with the values that the rule requires, for each row.

Usage: oracle.py DIR OUT...

Of the feature rows with the key of an entity row, the value is that of the row with the latest event time that is not later
than the entity row's time; of equal ones, the one that was created last. It is null if the event time is earlier than the
entity row's time minus the ttl. Prints, as JSON, for each output: the number of missing rows, the number of cells that
differ, and whether the rows are in the order of the entity rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from names import TTL_DAYS, VIEWS, feature_names, view_path

TTL = TTL_DAYS * 86_400 * 1_000_000


def keys(table: pa.Table) -> np.ndarray:
    """Returns the numbers in the IDs."""
    ids = table["customer_id"].combine_chunks()
    return np.array([int(name[-6:]) for name in ids.unique().to_pylist()])[ids.dictionary_encode().indices.to_numpy()]


def times(table: pa.Table, column: str) -> np.ndarray:
    return table[column].cast(pa.int64()).to_numpy()


def expected(directory: Path) -> dict[str, np.ndarray]:
    """Returns the value of each feature for each entity row. Null is NaN: the workload has no NaN."""
    entities = pq.read_table(directory / "entities.parquet")
    entity_keys, entity_times = keys(entities), times(entities, "event_timestamp")
    start = entity_times.min() - 10 * TTL
    # A key and a time in one number. Times take 42 bits, and keys 17.
    entity_places = (entity_keys << 42) + (entity_times - start)
    values = {}
    for view in range(VIEWS):
        rows = pq.read_table(view_path(directory, view))
        row_keys, row_times = keys(rows), times(rows, "event_timestamp")
        places = (row_keys << 42) + (row_times - start)
        # `lexsort` is stable: of rows with equal times, the later one is the last.
        order = np.lexsort((times(rows, "created"), places))
        found = np.searchsorted(places[order], entity_places, side="right") - 1
        winners = order[np.maximum(found, 0)]
        is_valid = (found >= 0) & (row_keys[winners] == entity_keys) & (row_times[winners] >= entity_times - TTL)
        for name in feature_names(view):
            values[name] = np.where(is_valid, rows[name].to_numpy()[winners], np.nan)
    return values


def compare(out: Path, values: dict[str, np.ndarray]) -> dict[str, int | bool]:
    table = pq.read_table(out)
    rows = table["row"].to_numpy()
    returned = np.unique(rows, return_index=True)[1]
    total = len(next(iter(values.values())))
    differing = 0
    for name, wanted in values.items():
        found = table[name].to_numpy()[returned]
        wanted = wanted[rows[returned]]
        # NaN differs from itself.
        differing += int(np.count_nonzero((found != wanted) & ~(np.isnan(found) & np.isnan(wanted))))
    in_order = len(rows) == total and bool((rows == np.arange(total)).all())
    # A row that was returned twice counts as a difference of all its cells.
    differing += (len(rows) - len(returned)) * len(values)
    return {"missing_rows": total - len(returned), "differing_cells": differing, "in_order": in_order}


if __name__ == "__main__":
    wanted_values = expected(Path(sys.argv[1]))
    print(json.dumps({path: compare(Path(path), wanted_values) for path in sys.argv[2:]}))
