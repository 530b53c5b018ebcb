"""Training sets on Ray: the join and the plugins run in Ray's workers.

    import larder.ray

    rows = larder.ray.get_historical_features(entity_rows, feature_service="SERVICE", store=store)

The values equal those of `FeatureStore.get_historical_features`, bit for bit. Needs Ray Data 2.40 or newer, and this package, the
configuration, the plugins and the feature files on all machines: see the guide "Distributed training sets".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import _request, _worker
from ._errors import RequestError
from ._request import Request
from ._set_request import SetRequest, selection
from ._store import FeatureStore

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

__all__ = ["apply_derived", "get_historical_features"]


def get_historical_features(
    dataset: Dataset,
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
    batch_size: int | None = 1_000_000,
    worker_config: str | os.PathLike[str] | None = None,
    map_options: dict[str, Any] | None = None,
) -> Dataset:
    """Joins entity rows with the feature values that were valid at their times.

    The arguments that are not described here are those of `FeatureStore.get_historical_features`.

    Args:
        dataset: The entity rows, with the columns that `FeatureStore.get_historical_features` needs. If its columns are not
            known yet, Ray reads its first rows.
        store: The store with the definitions. By default, the store of the module functions: see
            `get_feature_store_client`.
        memory: The memory of each task for entity rows and their features. The default is 2 GiB.
        threads: The number of threads of each task.
        batch_size: The number of entity rows that one task joins. Each task reads the feature files. None: the rows of a
            block.
        worker_config: The path of `larder.yaml` (or of the Feast repository) on the workers, if it differs. A relative path is
            relative to the working directory of the worker.
        map_options: Further arguments of `Dataset.map_batches`, such as `concurrency`, `num_cpus` or `memory`.

    Returns:
        The columns of `dataset`, unchanged, then the features. The order of the rows is the one of Ray's `map_batches`.
        `dataset` itself if it has no rows and its columns are unknown.

    Raises:
        ConfigError: The store has no definitions.
        RequestError: An argument is invalid.
        TrainingError: A feature does not exist, a column is missing, or the type of a column does not match.

        An error in a task is a `RayTaskError`, which contains the message.
    """
    _check_dataset(dataset)
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
    return _mapped(dataset, request, batch_size, worker_config, map_options)


def apply_derived(
    dataset: Dataset,
    features: list[str] | Any | None = None,
    full_feature_names: bool = False,
    *,
    store: FeatureStore | None = None,
    feature_service: str | None = None,
    timestamp_column: str = "event_timestamp",
    strict: bool = False,
    batch_size: int | None = None,
    worker_config: str | os.PathLike[str] | None = None,
    map_options: dict[str, Any] | None = None,
) -> Dataset:
    """Computes derived features of a dataset that already has the stored features. Reads no feature files.

    The arguments are those of `FeatureStore.apply_derived`, and `store`, `batch_size`, `worker_config` and `map_options` of
    `get_historical_features`.

    Returns:
        The columns of `dataset`, unchanged, then the derived features.
    """
    _check_dataset(dataset)
    selected = selection(features, feature_service)
    set_request = SetRequest.derived(selected, full_feature_names, timestamp_column, strict, threads=1)
    request = Request.of(store, set_request)
    return _mapped(dataset, request, batch_size, worker_config, map_options)


def _mapped(
    dataset: Dataset,
    request: Request,
    batch_size: int | None,
    worker_config: str | os.PathLike[str] | None,
    map_options: dict[str, Any] | None,
) -> Dataset:
    columns = _columns(dataset)
    if columns is None:
        return dataset
    request, _ = _request.on_driver(request, columns, worker_config)

    # Ray shows the name of the function.
    def larder(rows: pyarrow.Table) -> pyarrow.Table:
        return _worker.run_table(rows, request)

    return dataset.map_batches(larder, batch_size=batch_size, batch_format="pyarrow", **(map_options or {}))


def _check_dataset(dataset: object) -> None:
    from ray.data import Dataset

    if not isinstance(dataset, Dataset):
        raise RequestError(
            f"dataset: a value of the type '{type(dataset).__qualname__}' is not a dataset of Ray. hint: use ray.data.from_arrow "
            "or ray.data.from_pandas"
        )


def _columns(dataset: Dataset) -> pyarrow.Schema | None:
    """Returns the columns as Ray passes them to functions on Arrow tables; None if there are no rows, and Ray has lost the
    columns.
    """
    import pyarrow
    import ray

    schema = dataset.schema()
    if schema is None or not schema.names:
        if dataset.limit(1).count() == 0:
            return None
        raise RequestError("the dataset has rows without columns. hint: create it from a table with columns")
    if isinstance(schema.base_schema, pyarrow.Schema):
        return schema.base_schema
    # The blocks are data frames of pandas.
    tables = ray.get(dataset.limit(1).to_arrow_refs())
    return tables[0].schema
