"""Data frames of pandas. The types of their columns follow from the types of the definitions, not from the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._optional import require

if TYPE_CHECKING:
    import pandas
    import pyarrow


def typed_frame(table: pyarrow.Table, entity_columns: int = 0) -> pandas.DataFrame:
    """Converts a table to pandas.

    Integers and booleans have nullable types (`Int64`, `Int32` and `boolean`), so a column has the same type with and
    without nulls, and integers stay exact. The first `entity_columns` columns are not features: `nullable_frame`
    converts them, and the result has their index.
    """
    dtypes = _nullable_types()
    if entity_columns == 0:
        return table.to_pandas(types_mapper=dtypes.get)
    names = table.column_names
    entities = nullable_frame(table.select(names[:entity_columns]))
    # The features have no index of their own.
    features = table.select(names[entity_columns:]).replace_schema_metadata(None).to_pandas(types_mapper=dtypes.get)
    features.index = entities.index
    return require("pandas", "to_df").concat([entities, features], axis="columns")


def nullable_frame(table: pyarrow.Table) -> pandas.DataFrame:
    """Converts a table to pandas. Integers with nulls have the types `Int64` and `Int32`, instead of becoming floats."""
    import pyarrow

    dtypes = _nullable_types()
    frame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns):
        is_integer = pyarrow.types.is_integer(column.type) and column.type in dtypes
        if is_integer and column.null_count > 0 and name in frame.columns:
            frame[name] = pyarrow.table({name: column}).to_pandas(types_mapper=dtypes.get)[name].array
    return frame


def _nullable_types() -> dict[Any, Any]:
    import pandas
    import pyarrow

    return {
        pyarrow.int64(): pandas.Int64Dtype(),
        pyarrow.int32(): pandas.Int32Dtype(),
        pyarrow.bool_(): pandas.BooleanDtype(),
    }
