"""Feast's offline store: `FeatureStore.get_historical_features` of Feast runs on Larder's join.

Set the store in `feature_store.yaml`:

```yaml
offline_store:
  type: larder.feast.LarderOfflineStore
```

Entity rows keep their order and their number, and features have the types of their definitions: int64 features stay exact. The
feature views must read Parquet files. Without entity rows, the rows are the keys and times of the feature rows between
`start_date` and `end_date`. Feast computes on-demand views, as with its other offline stores. Feast's file store does
materialization and logging.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Union, cast

import pandas
import pyarrow
import pyarrow.parquet
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import FeatureView
from feast.infra.offline_stores.dask import DaskOfflineStore, DaskOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.protos.feast.core.FeatureService_pb2 import FeatureService
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import compute_non_entity_date_range

from . import FeatureStore
from ._errors import ConfigError, RequestError
from ._feast_entities import entity_rows_between
from ._frame import nullable_frame

_SERVICE = "larder_request"
_ENTITY_ROWS = "entity_df: the Larder offline store needs a data frame of pandas"


class LarderOfflineStoreConfig(DaskOfflineStoreConfig):
    """The settings of the store in `feature_store.yaml`. Feast's file store, which does the rest, checks for its own class."""

    type: Literal["larder.feast.LarderOfflineStore"] = "larder.feast.LarderOfflineStore"  # type: ignore[assignment]
    """Selects the store."""

    memory: Union[str, int, None] = None
    """The memory for entity rows and their features, in bytes or as text such as `2GiB`."""

    threads: Union[int, None] = None
    """The number of threads. The default is the number of processors."""


class LarderRetrievalJob(RetrievalJob):
    """The features of entity rows, which are joined when the result is read."""

    def __init__(
        self,
        start: Any,
        on_demand_feature_views: list[OnDemandFeatureView],
        full_feature_names: bool,
        metadata: RetrievalMetadata,
        repo_path: Path | None,
    ) -> None:
        super().__init__()
        self._start = start
        self._repo_path = repo_path
        self._on_demand_feature_views = on_demand_feature_views
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pandas.DataFrame:
        """Returns a `pandas.DataFrame`. Integer features with nulls have the types `Int64` and `Int32`, and stay exact."""
        return nullable_frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def _to_df_internal(self, timeout: int | None = None) -> pandas.DataFrame:
        return nullable_frame(self._start().to_arrow())

    def _to_arrow_internal(self, timeout: int | None = None) -> pyarrow.Table:
        return self._start().to_arrow()

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Writes the result, with its on-demand features, to Parquet: a file if the path ends with `.parquet`, or otherwise a
        file in a directory.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise RequestError("a saved dataset of the Larder offline store needs SavedDatasetFileStorage")
        options = storage.file_options
        path = str(FileSource.get_uri_for_file_path(repo_path=self._repo_path, uri=options.uri))
        if not allow_overwrite and Path(path).exists():
            raise SavedDatasetLocationAlreadyExists(location=path)
        filesystem, target = FileSource.create_filesystem_and_path(path, options.s3_endpoint_override)
        table = self.to_arrow(timeout=timeout)
        if target.endswith(".parquet"):
            pyarrow.parquet.write_table(table, target, filesystem=filesystem)
        else:
            # A fixed name, so that the file of an earlier dataset is replaced. Other files stay.
            pyarrow.parquet.write_to_dataset(
                table,
                target,
                filesystem=filesystem,
                basename_template="larder-{i}.parquet",
                existing_data_behavior="overwrite_or_ignore",
            )

    def supports_remote_storage_export(self) -> bool:
        return False


class LarderOfflineStore(DaskOfflineStore):
    """An offline store that joins entity rows with features by Larder."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pandas.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Joins entity rows with features.

        Without `entity_df`, the entity rows are the keys and times of the feature rows from `start_date` to `end_date`. By
        default, this range ends now, and is as long as the longest ttl of the views.

        Raises:
            RequestError: `entity_df` is not a data frame.
            ConfigError: A view does not read Parquet files.
        """
        for view in feature_views:
            if not isinstance(view.batch_source, FileSource):
                raise ConfigError(f"feature view '{view.name}': the Larder offline store reads Parquet files only")
        if entity_df is None:
            start_date, end_date = compute_non_entity_date_range(
                feature_views, start_date=kwargs.get("start_date"), end_date=kwargs.get("end_date")
            )
            entity_df = entity_rows_between(feature_views, config.repo_path, start_date, end_date)
        if not isinstance(entity_df, pandas.DataFrame):
            raise RequestError(f"{_ENTITY_ROWS}, but it is {type(entity_df).__name__}")
        time_column = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes)))
        # As in Feast's other stores, the times of the result are in UTC.
        times = pandas.to_datetime(entity_df[time_column], utc=True)
        rows = entity_df.assign(**{time_column: times})
        settings = cast(LarderOfflineStoreConfig, config.offline_store)
        definitions = _definitions(config, registry, project, feature_views, feature_refs)

        def start() -> Any:
            with tempfile.TemporaryDirectory(prefix="larder-feast-") as directory:
                _write_repository(Path(directory), config, project, definitions)
                store = FeatureStore(feast_repo=directory)
                job = store.get_historical_features(
                    pyarrow.Table.from_pandas(rows, preserve_index=False),
                    feature_service=_SERVICE,
                    full_feature_names=full_feature_names,
                    timestamp_column=time_column,
                    known_at="created" if filter_by_created_timestamp else "event",
                    memory=settings.memory,
                    threads=settings.threads,
                )
                # The definitions are needed until the rows are joined.
                job.report
                return job

        return LarderRetrievalJob(
            start,
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names,
            RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entity_df.columns if name != time_column],
                min_event_timestamp=_python_time(times.min()),
                max_event_timestamp=_python_time(times.max()),
            ),
            config.repo_path,
        )


def _python_time(time: Any) -> datetime | None:
    return None if pandas.isna(time) else time.to_pydatetime()


def _definitions(
    config: RepoConfig,
    registry: BaseRegistry,
    project: str,
    feature_views: Iterable[FeatureView],
    feature_refs: list[str],
) -> Registry:
    """Returns the registry with absolute paths, and with a service that has the requested features in their order."""
    definitions = Registry()
    definitions.CopyFrom(registry.proto())
    base = config.repo_path or Path.cwd()
    for view in definitions.feature_views:
        options = view.spec.batch_source.file_options
        if options.uri and "://" not in options.uri and not Path(options.uri).is_absolute():
            options.uri = str((base / options.uri).absolute())
    service = FeatureService()
    service.spec.name, service.spec.project = _SERVICE, project
    for view in feature_views:
        prefix = view.projection.name_to_use()
        wanted = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == prefix]
        projection = view.projection.to_proto()
        columns = {column.name: column for column in projection.feature_columns}
        del projection.feature_columns[:]
        projection.feature_columns.extend(columns[name] for name in wanted if name in columns)
        service.spec.features.append(projection)
    definitions.feature_services.append(service)
    return definitions


def _write_repository(directory: Path, config: RepoConfig, project: str, definitions: Registry) -> None:
    """Writes a Feast repository with these definitions."""
    (directory / "registry.db").write_bytes(definitions.SerializeToString())
    version = config.entity_key_serialization_version
    (directory / "feature_store.yaml").write_text(
        f"project: {project}\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: {version}\n"
        "online_store: {type: sqlite, path: online.db}\noffline_store: {type: file}\n"
    )
