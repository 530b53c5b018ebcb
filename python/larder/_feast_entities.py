"""Entity rows for a range of times, from the feature rows of Feast's views."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pandas
import pyarrow
import pyarrow.dataset
from feast.feature_view import DUMMY_ENTITY_ID, FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_utils import DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL

TIME = DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL


def entity_rows_between(
    views: Iterable[FeatureView], repo_path: Path | None, start: datetime, end: datetime
) -> pandas.DataFrame:
    """Returns the join keys and the times of all feature rows from `start` to `end`, both inclusive.

    Each combination occurs once. The rows are in the order of their times. A key that a view does not have is null in its rows.

    Args:
        views: Views that read Parquet files.
        repo_path: The directory of relative paths.
        start: A time with a zone.
        end: A time with a zone.
    """
    rows = pyarrow.concat_tables(
        [_distinct(_read(view, repo_path, start, end)) for view in views], promote_options="permissive"
    )
    keys = [(name, "ascending") for name in rows.column_names if name != TIME]
    frame: pandas.DataFrame = _distinct(rows).sort_by([(TIME, "ascending"), *keys]).to_pandas()
    return frame


def _distinct(rows: pyarrow.Table) -> pyarrow.Table:
    return rows.group_by(rows.column_names).aggregate([])


def _read(view: FeatureView, repo_path: Path | None, start: datetime, end: datetime) -> pyarrow.Table:
    source = view.batch_source
    uri = FileSource.get_uri_for_file_path(repo_path=repo_path, uri=source.file_options.uri)
    filesystem, path = FileSource.create_filesystem_and_path(str(uri), source.s3_endpoint_override)
    dataset = pyarrow.dataset.dataset(path, filesystem=filesystem)
    column = pyarrow.dataset.field(source.timestamp_field)
    type_of = dataset.schema.field(source.timestamp_field).type
    # Times without a zone are in UTC.
    unit = type_of.unit if pyarrow.types.is_timestamp(type_of) else "us"
    columns = {TIME: column.cast(pyarrow.timestamp(unit, "UTC"))}
    in_file = {name: original for original, name in (source.field_mapping or {}).items()}
    for key in view.entity_columns:
        if key.name != DUMMY_ENTITY_ID:
            name = view.projection.join_key_map.get(key.name, key.name)
            columns[name] = pyarrow.dataset.field(in_file.get(key.name, key.name))
    # Parts of microseconds do not matter for the bounds.
    time = column.cast(pyarrow.timestamp("us", "UTC"), safe=False)
    return dataset.to_table(columns=columns, filter=(time >= start) & (time <= end))
