"""The response to a lookup."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ._frame import typed_frame
from ._optional import require
from ._types import EPOCH, arrow_decoder, arrow_type, arrow_value, has_texts, is_nested, of_micros

if TYPE_CHECKING:
    import numpy
    import pandas
    import polars
    import pyarrow

    from ._native import ArrowTable

# The suffix of the names of event times in `to_dict`, as in Feast.
TIMESTAMP_SUFFIX = "__ts"
# The number of columns that `repr` shows.
SHOWN_COLUMNS = 5


class OnlineResponse(ABC):
    """Features of entities, in the order of the request: one row per entity, and one column per key and feature.

    Attributes:
        feature_names: The names of the columns: the keys and request inputs, then the features in requested order.
        read_through: `timeout` or `unavailable` if rows of a view with `on_miss: fetch` could not be fetched, otherwise
            None.
    """

    feature_names: list[str]
    read_through: str | None
    _types: dict[str, str]

    @property
    @abstractmethod
    def statuses(self) -> dict[str, list[str]]:
        """The status of each value: `PRESENT`, `NOT_FOUND`, `OUTSIDE_MAX_AGE` or `INVALID`. Keys are always present."""

    @property
    @abstractmethod
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        """The event time of each value, in UTC; None if there is none."""

    @abstractmethod
    def _rows(self) -> int: ...

    @abstractmethod
    def _values(self, name: str) -> list[Any]: ...

    @abstractmethod
    def to_arrow(self) -> pyarrow.Table:
        """Returns a `pyarrow.Table`. Timestamps are microseconds in UTC, sets are lists, and nested values are JSON."""

    @abstractmethod
    def to_numpy(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """Returns an array of shape (rows,) for each column.

        Nulls are NaN in floats and NaT in timestamps (`datetime64[us]`, in UTC). Other columns with nulls, and columns of
        text, bytes and lists, are arrays of Python objects.
        """

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """Returns a list of values for each column, as Python objects. Nulls are None.

        Args:
            include_event_timestamps: Also return the event times of each column, in seconds since 1970, as
                `NAME__ts`. The event time is 0 if there is none.
        """
        values: dict[str, list[Any]] = {}
        times = self.event_timestamps if include_event_timestamps else {}
        for name in self.feature_names:
            values[name] = self._values(name)
            if include_event_timestamps:
                values[name + TIMESTAMP_SUFFIX] = [
                    0 if time is None else int((time - EPOCH).total_seconds()) for time in times[name]
                ]
        return values

    def to_df(self, include_event_timestamps: bool = False) -> pandas.DataFrame:
        """Returns a `pandas.DataFrame`. Needs pyarrow, too.

        The types of columns depend only on the definitions: `Int64`, `Int32` and `boolean`, which have nulls; `float32` and
        `float64`, in which nulls are NaN; `datetime64[us, UTC]`, in which nulls are NaT; and Python objects for all other types,
        as in `to_arrow`: text, bytes, and NumPy arrays for lists and sets. UUIDs, decimals, JSON and nested values are text.

        Args:
            include_event_timestamps: Also return the event times of each column, as in `to_dict`.
        """
        pandas = require("pandas", "to_df")
        if self._types:
            frame = typed_frame(self.to_arrow())
        else:
            # Feast's server has no catalog, so the types are unknown.
            frame = pandas.DataFrame({name: self._values(name) for name in self.feature_names})
        if include_event_timestamps:
            values = self.to_dict(True)
            times = {name: times for name, times in values.items() if name not in frame.columns}
            frame = pandas.concat([frame, pandas.DataFrame(times)], axis="columns")[list(values)]
        return frame

    def to_polars(self) -> polars.DataFrame:
        """Returns a `polars.DataFrame`."""
        return require("polars", "to_polars").from_arrow(self.to_arrow())

    def __repr__(self) -> str:
        names = self.feature_names[:SHOWN_COLUMNS]
        more = len(self.feature_names) - len(names)
        columns = ", ".join(names) + (f" and {more} more" if more else "")
        rows = self._rows()
        return f"<larder.OnlineResponse: {rows} {'row' if rows == 1 else 'rows'} of {columns}>"


class JsonResponse(OnlineResponse):
    """A response whose values are Python objects."""

    __slots__ = ("_body", "_columns", "_statuses", "_times", "_types", "feature_names", "read_through")

    def __init__(
        self,
        decoded: tuple[list[str], list[list[Any]], list[list[str]], list[list[str]], str | None, bytes | None],
        types: dict[str, str],
    ) -> None:
        self.feature_names, self._columns, self._statuses, self._times, self.read_through, self._body = decoded
        self._types = types

    @property
    def statuses(self) -> dict[str, list[str]]:
        return dict(zip(self.feature_names, self._statuses))

    @property
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        parsed = [[_parse_time(time) for time in times] for times in self._times]
        return dict(zip(self.feature_names, parsed))

    def _rows(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    def _values(self, name: str) -> list[Any]:
        return self._columns[self.feature_names.index(name)]

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        if include_event_timestamps:
            return super().to_dict(True)
        return dict(zip(self.feature_names, self._columns))

    def to_arrow(self) -> pyarrow.Table:
        pyarrow = require("pyarrow", "to_arrow")
        arrays = {}
        texts = self._texts()
        for name, values in zip(self.feature_names, self._columns):
            type_name = self._types.get(name)
            if type_name is not None and name in texts:
                arrays[name] = pyarrow.array(texts[name], arrow_type(pyarrow, type_name))
            elif type_name is None:
                array = pyarrow.array(values)
                # As in Arrow responses, a column of unknown type with only nulls is text.
                arrays[name] = array.cast("string") if pyarrow.types.is_null(array.type) else array
            else:
                converted = [arrow_value(type_name, value) for value in values]
                arrays[name] = pyarrow.array(converted, arrow_type(pyarrow, type_name))
        return pyarrow.table(arrays)

    def _texts(self) -> dict[str, list[Any]]:
        """Returns the columns whose values are text in Arrow, exactly as in the response."""
        if self._body is None:
            return {}
        from ._native import json_texts

        types = [(index, name, self._types.get(name)) for index, name in enumerate(self.feature_names)]
        found = [(index, name, is_nested(of)) for index, name, of in types if of is not None and has_texts(of)]
        texts = json_texts(self._body, [(index, nested) for index, _, nested in found])
        return {name: column for (_, name, _), column in zip(found, texts)}

    def to_numpy(self) -> dict[str, numpy.ndarray[Any, Any]]:
        numpy = require("numpy", "to_numpy")
        return {name: _array(numpy, self._types.get(name), values) for name, values in self.to_dict().items()}


class ArrowResponse(OnlineResponse):
    """A response whose values are Arrow arrays. It supports Arrow's PyCapsule interface."""

    __slots__ = ("_table", "_types", "feature_names", "read_through")

    def __init__(self, table: ArrowTable, read_through: str | None, types: dict[str, str]) -> None:
        self.feature_names = _without_details(table.column_names)
        self._table = table
        self._types = types
        self.read_through = read_through

    @property
    def statuses(self) -> dict[str, list[str]]:
        return {name: self._extra(name, "__status", "PRESENT") for name in self.feature_names}

    @property
    def event_timestamps(self) -> dict[str, list[datetime | None]]:
        micros = {name: self._extra(name, "__event_timestamp", None) for name in self.feature_names}
        return {name: [None if time is None else _time(time) for time in times] for name, times in micros.items()}

    def _extra(self, name: str, suffix: str, of_key: Any) -> list[Any]:
        if name + suffix in self._table.column_names:
            return self._table.values(name + suffix)
        return [of_key] * self._table.num_rows

    def _rows(self) -> int:
        return self._table.num_rows

    def _values(self, name: str) -> list[Any]:
        values = self._table.values(name)
        type_name = self._types.get(name)
        decoder = arrow_decoder(type_name) if type_name is not None else None
        return values if decoder is None else decoder(values)

    def to_arrow(self) -> pyarrow.Table:
        return require("pyarrow", "to_arrow").table(self._table.select(self.feature_names))

    def to_polars(self) -> polars.DataFrame:
        return require("polars", "to_polars").DataFrame(self._table.select(self.feature_names))

    def to_numpy(self) -> dict[str, numpy.ndarray[Any, Any]]:
        numpy = require("numpy", "to_numpy")
        arrays = {}
        for name in self.feature_names:
            kind, data = self._table.numpy(name)
            if kind is None:
                arrays[name] = _objects(numpy, self._values(name))
            else:
                arrays[name] = numpy.frombuffer(data, kind)
        return arrays

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.select(self.feature_names).__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._table.select(self.feature_names).__arrow_c_schema__()


def _without_details(names: list[str]) -> list[str]:
    """Returns the columns before the statuses and event times, of which there are two columns per feature."""
    for features in range(len(names) // 3, 0, -1):
        details = len(names) - 2 * features
        suffixes = ("__status", "__event_timestamp")
        if names[details:] == [name + suffix for name in names[details - features : details] for suffix in suffixes]:
            return names[:details]
    return names


def _parse_time(text: str) -> datetime | None:
    """Parses an event time of a JSON response. The epoch stands for a missing event time."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return None if time == EPOCH else time


def _time(micros: int) -> datetime | None:
    time = of_micros(micros)
    return time if isinstance(time, datetime) else None


def _objects(numpy: Any, values: list[Any]) -> Any:
    """Returns an array of Python objects, even if all of them are lists of one length."""
    array = numpy.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array


def _array(numpy: Any, type_name: str | None, values: list[Any]) -> Any:
    """Returns the values of a JSON response as an array, with the same type as the values of an Arrow response."""
    if type_name in ("Float32", "Float64"):
        return numpy.array([float("nan") if value is None else value for value in values], dtype=type_name.lower())
    if type_name == "UnixTimestamp":
        naive = [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in values]
        return numpy.array(naive, dtype="datetime64[us]")
    if type_name in ("Int32", "Int64", "Bool") and None not in values:
        return numpy.array(values, dtype=type_name.lower())
    return _objects(numpy, values)
