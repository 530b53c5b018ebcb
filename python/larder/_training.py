"""Training sets: entity rows with the feature values that were valid at their times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import LarderError, RequestError
from ._frame import typed_frame
from ._optional import require

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from ._native import ArrowTable, TrainingSet


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class BackfillFile:
    """A file of a backfill.

    Attributes:
        path: The path of the file, or the URL of the object in S3, as a `str`.
        rows: The number of rows.
        report: The counts of the run, as `RetrievalJob.report`.
    """

    path: Path | str
    rows: int
    report: dict[str, Any]


def microseconds(argument: str, time: datetime | str) -> int:
    """Returns a time in microseconds since 1970. A time without a zone is in UTC.

    Raises:
        RequestError: `time` is not a time.
    """
    if isinstance(time, str):
        try:
            # Python 3.10 does not read the suffix Z.
            time = datetime.fromisoformat(time.replace("Z", "+00:00"))
        except ValueError:
            raise RequestError(f"{argument}: '{time}' is not a time such as '2026-01-31' or '2026-01-31T10:00:00Z'") from None
    if not isinstance(time, datetime):
        raise RequestError(f"{argument}: type '{type(time).__name__}' is not supported. hint: use a datetime, or text such as '2026-01-31'")
    aware = time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)
    return (aware - _EPOCH) // timedelta(microseconds=1)


class RetrievalJob:
    """A training set that is built when its rows are read.

    The rows are the entity rows in their order: the columns of the entity rows, then the features in requested order. The
    job supports Arrow's PyCapsule interface, so `polars.DataFrame(job)` and `pyarrow.table(job)` work, too.

    The first call that needs all rows keeps them, and later calls except `to_parquet` use them. `to_batches` and `to_parquet`
    keep no rows, so a training set may be larger than the memory.

    A process may fork while it has a job. The child can call the methods of a job, except that it cannot continue a run of its
    parent, and that entity rows which can be read only once, such as a `RecordBatchReader`, belong to the parent.
    """

    def __init__(self, start: Callable[[], TrainingSet], description: str) -> None:
        self._start = start
        self._description = description
        # Reports invalid arguments now. The rows are read later.
        prepared = start()
        self._prepared: TrainingSet | None = prepared
        self._columns, self._entity_columns = len(prepared.column_names), prepared.entity_columns
        self._rows: ArrowTable | None = None
        self._report: dict[str, Any] | None = None
        self._manifest: dict[str, Any] | None = None
        self._process = os.getpid()

    def __repr__(self) -> str:
        rows = "not read" if self._report is None else self._report["rows"]
        return f"<larder.RetrievalJob: {self._description}, columns: {self._columns}, rows: {rows}>"

    def _next_set(self) -> TrainingSet:
        prepared, self._prepared = self._prepared, None
        # After a fork, a set needs the definitions and threads of its own process.
        is_usable = prepared is not None and self._process == os.getpid()
        return prepared if prepared is not None and is_usable else self._start()

    def _finish(self, read: TrainingSet) -> None:
        self._report, self._manifest = read.report(), read.manifest()

    def _table(self) -> ArrowTable:
        if self._rows is None:
            running = self._next_set()
            self._rows = running.collect()
            self._finish(running)
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

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest: the request, the versions and digests of all inputs, the counts of the run, and the size and digest of the
        file.

        It is the content of the file that `to_parquet` writes, and of the file that `larder training-set` writes. `output` is
        None if the set was not written to a file. For a data frame, `inputs.entities.files` is empty, because it has no digest.

        If the rows were not read yet, this reads them.

        Raises:
            LarderError: The job computes derived features of a frame, or the training set cannot be built.
        """
        if self._manifest is None:
            self._table()
        if self._manifest is None:
            raise LarderError("derived features of a frame have no manifest. hint: use get_historical_features")
        return self._manifest

    def to_arrow(self) -> pyarrow.Table:
        """Returns a `pyarrow.Table`."""
        return require("pyarrow", "to_arrow").table(self._table())

    def to_polars(self) -> polars.DataFrame:
        """Returns a `polars.DataFrame`."""
        return require("polars", "to_polars").DataFrame(self._table())

    def to_df(self) -> pandas.DataFrame:
        """Returns a `pandas.DataFrame`. Needs pyarrow, too.

        The types of the features are those of `OnlineResponse.to_df`. The columns of the entity rows keep their types, except that
        integers with nulls have the types `Int64` and `Int32`.
        """
        require("pandas", "to_df")
        return typed_frame(require("pyarrow", "to_df").table(self._table()), self._entity_columns)

    def to_batches(self) -> Iterator[pyarrow.RecordBatch]:
        """Yields `pyarrow.RecordBatch` objects of some thousand rows."""
        pyarrow = require("pyarrow", "to_batches")
        if self._rows is not None:
            yield from pyarrow.table(self._rows).to_batches()
            return
        running = self._next_set()
        while (batch := running.next_batch()) is not None:
            yield from pyarrow.table(batch).to_batches()
        self._finish(running)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows to a Parquet file, a directory or S3, and the manifest next to them, with the suffix `.manifest.json`.

        If the run fails or is interrupted, an earlier file keeps its content. Below a prefix in S3, objects that are complete
        stay.

        Args:
            path: The path of the file, or an `s3://` URL as a `str`. If it ends with a slash, or is a directory, it is the empty
                directory or prefix for several files.

        Raises:
            TrainingError: The training set cannot be built, the file cannot be written, or it is one of the inputs.
        """
        running = self._next_set()
        running.write_parquet(os.fspath(path))
        self._finish(running)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table().__arrow_c_schema__()
