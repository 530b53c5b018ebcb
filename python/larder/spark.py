"""Training sets on Spark: the join and the plugins run in Spark's Python workers.

    import larder.spark

    rows = larder.spark.get_historical_features(entity_rows, feature_service="SERVICE", store=store)

The values equal those of `FeatureStore.get_historical_features`, bit for bit. Needs PySpark 4.0 or newer, and this package, the
configuration, the plugins and the feature files on all machines: see the guide "Distributed training sets".
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

from . import _request, _worker
from ._errors import RequestError
from ._request import Request
from ._set_request import SetRequest, selection
from ._store import FeatureStore

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import DataFrame, GroupedData
    from pyspark.sql.types import DataType, StructField, StructType

    MapBatches = Callable[[Iterable[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]
    JoinTables = Callable[[pyarrow.Table, pyarrow.Table], pyarrow.Table]

__all__ = ["apply_derived", "get_historical_features"]

_BUCKET = "__larder_bucket"


def get_historical_features(
    spark_df: DataFrame,
    features: list[str] | Any | None = None,
    full_feature_names: bool = False,
    *,
    store: FeatureStore | None = None,
    feature_service: str | None = None,
    known_at: str = "event",
    ttl: str = "null",
    event_timestamps: bool = False,
    timestamp_column: str = "event_timestamp",
    strict: bool = False,
    memory: int | str | None = None,
    threads: int | None = 1,
    method: str = "scan",
    buckets: int | None = None,
    worker_config: str | os.PathLike[str] | None = None,
) -> DataFrame:
    """Joins entity rows with the feature values that were valid at their times.

    The arguments that are not described here are those of `FeatureStore.get_historical_features`.

    Args:
        spark_df: The entity rows, with the columns that `FeatureStore.get_historical_features` needs. A `TIMESTAMP_NTZ` is in
            UTC.
        store: The store with the definitions. By default, the store of the module functions: see
            `get_feature_store_client`.
        memory: The memory of each task for entity rows and their features. The default is 2 GiB.
        threads: The number of threads of each task.
        method: `scan`: each task reads the feature files for its partition of the entity rows. `shuffle`: Spark moves entity
            rows and feature rows with the same key to the same task, and each feature file is read once. Use it if the
            feature files are too large to be read by each task.
        buckets: The number of groups into which `shuffle` divides the keys, and the number of tasks that read each view. By
            default, `spark.sql.shuffle.partitions`. The rows of a group, and its feature rows, must fit into the memory of a
            task.
        worker_config: The path of `larder.yaml` (or of the Feast repository) on the workers, if it differs. A relative path is
            relative to the working directory of the worker.

    Returns:
        The columns of `spark_df`, unchanged, then the features. The order of the rows is not defined.

    Raises:
        ConfigError: The store has no definitions.
        RequestError: An argument is invalid.
        TrainingError: A feature does not exist, a column is missing, or the type of a column does not match.

        An error in a task is a `PythonException` of Spark, which contains the message.
    """
    if method not in ("scan", "shuffle"):
        raise RequestError(f"method: '{method}' is not one of 'scan', 'shuffle'")
    if buckets is not None:
        buckets = _checked_buckets(buckets)
    _check_frame(spark_df)
    set_request = SetRequest(
        selection(features, feature_service),
        full_feature_names,
        timestamp_column,
        strict,
        known_at=known_at,
        ttl=ttl,
        event_timestamps=event_timestamps,
        memory=memory,
        threads=threads,
    )
    request = Request.of(store, set_request)
    rows = _Rows.of(spark_df)
    request, plan = _request.on_driver(request, rows.columns, worker_config)
    output = _schema(plan)
    if method == "scan":
        return rows.mapped(_runner(request), output).renamed()
    if buckets is None:
        buckets = int(spark_df.sparkSession.conf.get("spark.sql.shuffle.partitions") or 200)
    entities = rows
    for key, reads in enumerate(plan.keys()):
        with_buckets, of_features, after = (_schema(of) for of in plan.shuffled_schemas(key, rows.columns.empty_table()))
        left = rows.mapped(_bucketer(request, key, buckets), with_buckets)
        tasks = buckets * len(reads)
        right = _Rows.of(spark_df.sparkSession.range(0, tasks, 1, tasks)).mapped(
            _feature_reader(request, entities.columns, reads, buckets), of_features
        )
        rows = left.joined(right, _BUCKET, _finder(request, key), after)
    return rows.mapped(_answerer(request), output).renamed()


def apply_derived(
    spark_df: DataFrame,
    features: list[str] | Any | None = None,
    full_feature_names: bool = False,
    *,
    store: FeatureStore | None = None,
    feature_service: str | None = None,
    timestamp_column: str = "event_timestamp",
    strict: bool = False,
    worker_config: str | os.PathLike[str] | None = None,
) -> DataFrame:
    """Computes derived features of a frame that already has the stored features. Reads no feature files.

    The arguments are those of `FeatureStore.apply_derived`, and `store` and `worker_config` of `get_historical_features`.

    Returns:
        The columns of `spark_df`, unchanged, then the derived features. Each partition keeps the order of its rows.
    """
    _check_frame(spark_df)
    selected = selection(features, feature_service)
    set_request = SetRequest.derived(selected, full_feature_names, timestamp_column, strict, threads=1)
    request = Request.of(store, set_request)
    rows = _Rows.of(spark_df)
    request, plan = _request.on_driver(request, rows.columns, worker_config)
    return rows.mapped(_runner(request), _schema(plan)).renamed()


@dataclass(frozen=True)
class _Rows:
    """Rows in Spark. Their columns are named by position, because Spark cannot pass a column to Python if its name has a dot
    or a backtick, or differs from another one only in case.

    Attributes:
        frame: The rows.
        fields: The columns in Spark, with their own names.
        columns: The columns as Spark passes them to Python, with their own names.
    """

    frame: DataFrame
    fields: list[StructField]
    columns: pyarrow.Schema

    @classmethod
    def of(cls, frame: DataFrame) -> _Rows:
        fields = frame.schema.fields
        numbered = frame.toDF(*_worker.positions(len(fields)))
        # Spark runs no job for this, because there are no rows.
        types = numbered.limit(0).toArrow().schema
        return cls(numbered, fields, _schema([of.with_name(field.name) for of, field in zip(types, fields)]))

    def mapped(self, run: MapBatches, output: pyarrow.Schema) -> _Rows:
        """Calls a function for the batches of each partition. The function returns batches with the columns `output`."""
        names, numbers = self.columns.names, _worker.positions(len(output))
        fields = self._fields(output)
        frame = self.frame.mapInArrow(
            lambda batches: _worker.named(numbers, run(_worker.named(names, batches))), _numbered(fields)
        )
        return _Rows(frame, fields, output)

    def joined(self, other: _Rows, by: str, run: JoinTables, output: pyarrow.Schema) -> _Rows:
        """Calls a function for the rows of both sides that have the same value in the column `by`. The function returns a table with the
        columns `output`.
        """
        names, others, numbers = self.columns.names, other.columns.names, _worker.positions(len(output))
        fields = self._fields(output)
        pairs = self._grouped(by).cogroup(other._grouped(by))
        frame = pairs.applyInArrow(
            lambda left, right: run(left.rename_columns(names), right.rename_columns(others)).rename_columns(numbers),
            _numbered(fields),
        )
        return _Rows(frame, fields, output)

    def renamed(self) -> DataFrame:
        """Returns the rows with their original column names."""
        return self.frame.toDF(*self.columns.names)

    def _fields(self, output: pyarrow.Schema) -> list[StructField]:
        """Returns the columns of `output` in Spark. The columns of these rows keep their types."""
        from pyspark.sql.types import StructField

        own = {field.name: field for field in self.fields}
        return [own.get(field.name) or StructField(field.name, _spark_type(field.type), True) for field in output]

    def _grouped(self, by: str) -> GroupedData:
        return self.frame.groupBy(self.frame.columns[self.columns.names.index(by)])


def _numbered(fields: list[StructField]) -> StructType:
    from pyspark.sql.types import StructField, StructType

    names = _worker.positions(len(fields))
    return StructType([StructField(name, of.dataType, of.nullable, of.metadata) for name, of in zip(names, fields)])


def _check_frame(spark_df: object) -> None:
    from pyspark.sql import DataFrame

    if not isinstance(spark_df, DataFrame):
        raise RequestError(
            f"spark_df: a value of the type '{type(spark_df).__qualname__}' is not a data frame of Spark. hint: use "
            "spark.createDataFrame"
        )


def _checked_buckets(buckets: object) -> int:
    # Integers of NumPy are accepted, too.
    if isinstance(buckets, bool) or not isinstance(buckets, SupportsIndex):
        raise RequestError(f"buckets: {buckets!r} is not an integer")
    number = operator.index(buckets)
    if not 1 <= number < 2**31:
        raise RequestError(f"buckets: {number} is not between 1 and 2147483647")
    return number


def _runner(request: Request) -> MapBatches:
    return lambda batches: _worker.run(request, batches)


def _bucketer(request: Request, key: int, buckets: int) -> MapBatches:
    return lambda batches: _worker.with_buckets(request, key, buckets, batches)


def _feature_reader(request: Request, columns: pyarrow.Schema, reads: list[int], buckets: int) -> MapBatches:
    return lambda tasks: _worker.feature_rows(request, columns, reads, buckets, buckets, tasks)


def _finder(request: Request, key: int) -> JoinTables:
    return lambda entities, features: _worker.find(request, key, entities, features)


def _answerer(request: Request) -> MapBatches:
    return lambda batches: _worker.answer(request, batches)


def _schema(of: Any) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema(of)


def _spark_type(of: pyarrow.DataType) -> DataType:
    """Returns Spark's type for one of the types of features."""
    import pyarrow
    from pyspark.sql import types

    if pyarrow.types.is_timestamp(of):
        return types.TimestampType()
    if pyarrow.types.is_list(of):
        return types.ArrayType(_spark_type(of.value_type), True)
    names = {
        pyarrow.bool_(): types.BooleanType(),
        pyarrow.int32(): types.IntegerType(),
        pyarrow.int64(): types.LongType(),
        pyarrow.float32(): types.FloatType(),
        pyarrow.float64(): types.DoubleType(),
        pyarrow.string(): types.StringType(),
        pyarrow.binary(): types.BinaryType(),
    }
    return names[of]
