"""The functions that the workers of Spark and Ray call for their rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ._request import INTERNAL_PREFIX, Request, on_worker

if TYPE_CHECKING:
    import pyarrow

    from ._native import TrainingSet


def run(request: Request, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """Joins entity rows with features, or computes the derived features of a frame.

    The rows of all batches are joined together, so each feature file is read once per call, unless the rows do not fit into
    the memory of the request.
    """
    rows = _reader(batches)
    if rows is not None:
        yield from _batches(on_worker(request, rows.schema, reads_files=True).run(rows))


def run_table(rows: pyarrow.Table, request: Request) -> pyarrow.Table:
    """Like `run`, for a table."""
    import pyarrow

    return pyarrow.table(on_worker(request, rows.schema, reads_files=True).run(rows).collect())


def with_buckets(
    request: Request, key: int, buckets: int, batches: Iterable[pyarrow.RecordBatch]
) -> Iterator[pyarrow.RecordBatch]:
    """Adds the number of the bucket to entity rows."""
    rows = _reader(batches)
    if rows is not None:
        yield from _batches(on_worker(request, rows.schema, reads_files=False).with_buckets(key, buckets, rows))


def feature_rows(
    request: Request,
    columns: pyarrow.Schema,
    reads: list[int],
    parts: int,
    buckets: int,
    tasks: Iterable[pyarrow.RecordBatch],
) -> Iterator[pyarrow.RecordBatch]:
    """Reads the feature rows of tasks. A task is the number of a read and of a part of the view's row groups."""
    for batch in tasks:
        for task in batch.column(0).to_pylist():
            part, read = divmod(task, len(reads))
            plan = on_worker(request, columns, reads_files=True)
            yield from _batches(plan.feature_rows(reads[read], part, parts, buckets))
            # The files must not have changed during the read.
            on_worker(request, columns, reads_files=True)


def find(request: Request, key: int, entities: pyarrow.Table, features: pyarrow.Table) -> pyarrow.Table:
    """Joins the entity rows of a bucket with its feature rows.

    Returns the types that Spark requires of a cogroup: times in UTC, and bytes as Spark passes them (as large_binary with the
    setting useLargeVarTypes).
    """
    import pyarrow

    plan = on_worker(request, entities.schema, reads_files=False)
    found = pyarrow.table(plan.find(key, entities, features))
    of_bytes = next(of for of in features.schema.types if pyarrow.types.is_binary(of) or pyarrow.types.is_large_binary(of))
    is_added = [field.name.startswith(INTERNAL_PREFIX) for field in found.schema]
    types = [of_bytes if is_new else _in_utc(of) for is_new, of in zip(is_added, found.schema.types)]
    return found.cast(pyarrow.schema([field.with_type(of) for field, of in zip(found.schema, types)]))


def answer(request: Request, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """Makes the answers of entity rows whose feature rows were found."""
    rows = _reader(batches)
    if rows is not None:
        yield from _batches(on_worker(request, rows.schema, reads_files=False).answer(rows))


def named(names: list[str], batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    """Renames the columns of batches."""
    import pyarrow

    for batch in batches:
        fields = [field.with_name(name) for field, name in zip(batch.schema, names)]
        yield pyarrow.RecordBatch.from_arrays(batch.columns, schema=pyarrow.schema(fields))


def positions(columns: int) -> list[str]:
    """Returns names of columns that Spark can resolve without quotes."""
    return [f"column{position}" for position in range(columns)]


def _reader(batches: Iterable[pyarrow.RecordBatch]) -> pyarrow.RecordBatchReader | None:
    """Returns a reader of batches, or None if there are no batches, whose columns are therefore unknown."""
    import pyarrow

    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        return None
    return pyarrow.RecordBatchReader.from_batches(first.schema, itertools.chain([first], iterator))


def _in_utc(of: pyarrow.DataType) -> pyarrow.DataType:
    """Returns a type whose times have the zone UTC instead of another one. The instants stay the same."""
    import pyarrow

    if pyarrow.types.is_timestamp(of) and of.tz is not None:
        return pyarrow.timestamp(of.unit, "UTC")
    if pyarrow.types.is_list(of):
        return pyarrow.list_(of.value_field.with_type(_in_utc(of.value_type)))
    if pyarrow.types.is_map(of):
        key, item = of.key_field.with_type(_in_utc(of.key_type)), of.item_field.with_type(_in_utc(of.item_type))
        return pyarrow.map_(key, item, of.keys_sorted)
    if pyarrow.types.is_struct(of):
        return pyarrow.struct([field.with_type(_in_utc(field.type)) for field in of])
    return of


def _batches(running: TrainingSet) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    while (batch := running.next_batch()) is not None:
        yield from pyarrow.table(batch).to_batches()
