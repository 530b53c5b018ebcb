"""Training sets: entity rows with the feature values that were valid at their times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._errors import LarderError
from ._optional import require

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from ._native import ArrowTable, TrainingSet


def nullable_frame(table: pyarrow.Table) -> pandas.DataFrame:
    """Converts a table to pandas. Integers with nulls have the types `Int64` and `Int32`, instead of becoming floats."""
    import pandas
    import pyarrow

    nullable = {pyarrow.int64(): pandas.Int64Dtype(), pyarrow.int32(): pandas.Int32Dtype()}
    frame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns):
        if column.null_count > 0 and column.type in nullable and name in frame.columns:
            frame[name] = pyarrow.table({name: column}).to_pandas(types_mapper=nullable.get)[name].array
    return frame


class RetrievalJob:
    """A training set that is built when its rows are read.

    The rows are the entity rows in their order: the columns of the entity rows, then the features in requested order. The
    job supports Arrow's PyCapsule interface, so `polars.DataFrame(job)` and `pyarrow.table(job)` work, too.

    The first call that needs all rows keeps them, and later calls except `to_parquet` use them. `to_batches` and `to_parquet` keep no rows, so a
    training set may be larger than the memory.
    """

    def __init__(self, start: Callable[[], TrainingSet]) -> None:
        self._start = start
        # Reports invalid arguments now. The rows are read later.
        self._prepared: TrainingSet | None = start()
        self._rows: ArrowTable | None = None
        self._report: dict[str, Any] | None = None

    def _next_set(self) -> TrainingSet:
        prepared, self._prepared = self._prepared, None
        return prepared if prepared is not None else self._start()

    def _table(self) -> ArrowTable:
        if self._rows is None:
            running = self._next_set()
            self._rows = running.collect()
            self._report = running.report()
        return self._rows

    @property
    def report(self) -> dict[str, Any]:
        """Counts of the run: `rows`, `rows_without_time`, and for each view `matched`, `expired`, `not_found`, `no_key`,
        `late` (rows whose feature row was created after their time) and `same_time`.

        If the rows were not read yet, this reads them.
        """
        if self._report is None:
            self._table()
        if self._report is None:
            raise LarderError("the run has no report, because not all rows were read")
        return self._report

    def to_arrow(self) -> pyarrow.Table:
        """Returns a `pyarrow.Table`."""
        return require("pyarrow", "to_arrow").table(self._table())

    def to_polars(self) -> polars.DataFrame:
        """Returns a `polars.DataFrame`."""
        return require("polars", "to_polars").DataFrame(self._table())

    def to_df(self) -> pandas.DataFrame:
        """Returns a `pandas.DataFrame`. Integer features with nulls have the types `Int64` and `Int32`, and stay exact.

        pandas converts the columns with pyarrow.
        """
        require("pandas", "to_df")
        return nullable_frame(require("pyarrow", "to_df").table(self._table()))

    def to_batches(self) -> Iterator[pyarrow.RecordBatch]:
        """Yields `pyarrow.RecordBatch` objects of some thousand rows."""
        pyarrow = require("pyarrow", "to_batches")
        if self._rows is not None:
            yield from pyarrow.table(self._rows).to_batches()
            return
        running = self._next_set()
        while (batch := running.next_batch()) is not None:
            yield from pyarrow.table(batch).to_batches()
        self._report = running.report()

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes a Parquet file. If the run fails or is interrupted, no file is left.

        Raises:
            TrainingError: The training set cannot be built, or the file cannot be written.
        """
        running = self._next_set()
        running.write_parquet(os.fspath(path))
        self._report = running.report()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table().__arrow_c_schema__()
