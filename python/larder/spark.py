"""Training sets on Spark: the join and the plugins run in Spark's Python workers.

    import larder.spark

    rows = larder.spark.get_historical_features(entity_rows, feature_service="SERVICE", store=store)

The values equal those of `FeatureStore.get_historical_features`, bit for bit. Needs PySpark 4.0 or newer, and this package, the
configuration, the plugins and the feature files on all machines: see the guide "Distributed training sets".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import _request, _worker
from ._errors import RequestError
from ._request import Request
from ._set_request import SetRequest, selection
from ._store import FeatureStore

if TYPE_CHECKING:
    import pyarrow
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType, StructType

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
    if buckets is not None and not 1 <= buckets < 2**31:
        raise RequestError(f"buckets: {buckets} is not between 1 and 2147483647")
    of_set = SetRequest(
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
    request = Request.of(store, of_set)
    columns = _columns(spark_df)
    request, plan = _request.on_driver(request, columns, worker_config)
    output = _extended(spark_df.schema, columns, _schema(plan))
    if method == "scan":
        return spark_df.mapInArrow(_runner(request), output)
    if buckets is None:
        buckets = int(spark_df.sparkSession.conf.get("spark.sql.shuffle.partitions") or 200)
    rows, found = spark_df, columns
    for key, reads in enumerate(plan.keys()):
        with_buckets, of_features, after = (_schema(of) for of in plan.shuffled_schemas(key, found.empty_table()))
        left = rows.mapInArrow(_bucketer(request, key, buckets), _extended(rows.schema, found, with_buckets))
        tasks = buckets * len(reads)
        right = spark_df.sparkSession.range(0, tasks, 1, tasks).mapInArrow(
            _feature_reader(request, columns, reads, buckets), _extended(None, None, of_features)
        )
        pairs = left.groupBy(_BUCKET).cogroup(right.groupBy(_BUCKET))
        rows, found = pairs.applyInArrow(_finder(request, key), _extended(rows.schema, found, after)), after
    return rows.mapInArrow(_answerer(request), output)


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
    selected = selection(features, feature_service)
    of_set = SetRequest.derived(selected, full_feature_names, timestamp_column, strict, threads=1)
    request = Request.of(store, of_set)
    columns = _columns(spark_df)
    request, plan = _request.on_driver(request, columns, worker_config)
    return spark_df.mapInArrow(_runner(request), _extended(spark_df.schema, columns, _schema(plan)))


def _runner(request: Request) -> Callable[[Iterable[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]:
    return lambda batches: _worker.run(request, batches)


def _bucketer(
    request: Request, key: int, buckets: int
) -> Callable[[Iterable[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]:
    return lambda batches: _worker.with_buckets(request, key, buckets, batches)


def _feature_reader(
    request: Request, columns: pyarrow.Schema, reads: list[int], buckets: int
) -> Callable[[Iterable[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]:
    return lambda tasks: _worker.feature_rows(request, columns, reads, buckets, buckets, tasks)


def _finder(request: Request, key: int) -> Callable[[pyarrow.Table, pyarrow.Table], pyarrow.Table]:
    return lambda entities, features: _worker.find(request, key, entities, features)


def _answerer(request: Request) -> Callable[[Iterable[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]:
    return lambda batches: _worker.answer(request, batches)


def _columns(spark_df: DataFrame) -> pyarrow.Schema:
    """Returns the columns as Spark passes them to Python. Spark runs no job for this, because there are no rows."""
    return spark_df.limit(0).toArrow().schema


def _schema(of: Any) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema(of)


def _extended(rows: StructType | None, columns: pyarrow.Schema | None, output: pyarrow.Schema) -> StructType:
    """Returns Spark's type of rows of `rows`, followed by the columns of `output` that are not in `columns`."""
    from pyspark.sql.types import StructField, StructType

    known = set() if columns is None else set(columns.names)
    fields = [] if rows is None else [field for field in rows.fields if field.name in output.names]
    added = [field for field in output if field.name not in known]
    return StructType(fields + [StructField(field.name, _spark_type(field.type), True) for field in added])


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
