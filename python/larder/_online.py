"""Lookups from a running server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._catalog import Catalog
from ._errors import RequestError
from ._optional import require
from ._response import ArrowResponse, JsonResponse, OnlineResponse
from ._types import Decoder, has_texts, json_decoder

if TYPE_CHECKING:
    from ._native import OnlineClient

# How long the catalog of the server is used, in seconds. A type that changes in the meantime is noticed when a value does not
# fit the earlier type.
CATALOG_SECONDS = 60.0
# The maximum number of cached request shapes.
SHAPES_MAX = 1000
# The forms of entities, for hints.
FORMS = "use {'KEY': [VALUE, ...]}, a pandas or polars data frame, a pyarrow table, or a list of mappings"


class _Shape:
    """All parts of a request except the entities, with the types of the columns of its response."""

    __slots__ = ("decoders", "expires", "has_texts", "start", "types")

    def __init__(self, start: bytes, types: dict[str, str], expires: float) -> None:
        self.start = start
        self.types = types
        self.expires = expires
        self.decoders: dict[str, Decoder] = {}
        for name, type_name in types.items():
            is_converted, decoder = json_decoder(type_name)
            if is_converted:
                self.decoders[name] = decoder
        self.has_texts = any(has_texts(type_name) for type_name in types.values())


class Lookups:
    """Sends lookups, and converts the values of the responses to their types. Threads may share it."""

    def __init__(self, client: OnlineClient, definitions: Catalog | None = None) -> None:
        self._client = client
        # The definitions of the configuration. The types of values in responses are those of the server's definitions.
        self.definitions = definitions
        self._shapes: dict[tuple[Any, ...], _Shape] = {}
        self._catalog: Catalog | None = None
        self._catalog_expires = 0.0

    def catalog(self, timeout: float | None = None, max_age: float = CATALOG_SECONDS) -> Catalog:
        """Returns the server's definitions, which are read again if they are older than `max_age` seconds."""
        now = time.monotonic()
        catalog = self._catalog
        if catalog is None or now >= self._catalog_expires - CATALOG_SECONDS + max_age:
            try:
                catalog = Catalog(self._client.catalog(timeout))
            except RequestError as error:
                # Feast's server has no catalog. The values of its responses are returned as they are in JSON.
                if error.status not in (404, 405):
                    raise
                catalog = Catalog({})
            self._catalog = catalog
            self._catalog_expires = time.monotonic() + CATALOG_SECONDS
        return catalog

    def get(
        self,
        service: str | None,
        features: tuple[str, ...],
        entities: dict[str, Any],
        full_feature_names: bool,
        columnar: bool,
        timeout: float | None,
    ) -> OnlineResponse:
        key = (service, full_feature_names, *features)
        shape = self._shapes.get(key)
        is_new = shape is None or time.monotonic() >= shape.expires
        if shape is None or is_new:
            shape = self._shape(key, service, features, full_feature_names, timeout, CATALOG_SECONDS)
        if columnar:
            table, read_through = self._client.lookup_arrow(shape.start, entities, timeout)
            return ArrowResponse(table, read_through, shape.types)
        try:
            return self._look_up(shape, entities, timeout)
        except (TypeError, ValueError, ArithmeticError):
            if is_new:
                raise
        # A value does not fit the type in the cached catalog, so the type has changed.
        shape = self._shape(key, service, features, full_feature_names, timeout, 0.0)
        return self._look_up(shape, entities, timeout)

    def _look_up(self, shape: _Shape, entities: dict[str, Any], timeout: float | None) -> JsonResponse:
        decoded = self._client.lookup(shape.start, entities, shape.decoders, shape.has_texts, timeout)
        return JsonResponse(decoded, shape.types)

    def _shape(
        self,
        key: tuple[Any, ...],
        service: str | None,
        features: tuple[str, ...],
        full_feature_names: bool,
        timeout: float | None,
        max_age: float,
    ) -> _Shape:
        before = self._catalog
        catalog = self.catalog(timeout, max_age)
        types = catalog.column_types(service, features, full_feature_names)
        if types is None and catalog is before:
            # The server may have reloaded its definitions.
            types = self.catalog(timeout, 0.0).column_types(service, features, full_feature_names)
        # If a name is unknown, the response to the lookup is the error.
        types = types or {}
        request: dict[str, Any] = {"feature_service": service} if service is not None else {"features": features}
        if full_feature_names:
            request["full_feature_names"] = True
        start = json.dumps(request)[:-1].encode() + b', "entities": '
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        shape = _Shape(start, types, self._catalog_expires)
        self._shapes[key] = shape
        return shape


def _is_frame(entities: Any) -> bool:
    """Returns whether entities are a data frame of pandas or polars, whose columns can be read without pyarrow."""
    packages = {base.__module__.partition(".")[0] for base in type(entities).__mro__ if base.__name__ == "DataFrame"}
    return not packages.isdisjoint(("pandas", "polars"))


def entity_columns(entities: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the entities of a request as a mapping from names to lists.

    Args:
        entities: Such a mapping, a data frame, another object with Arrow data, or a list of mappings with the same names, one
            per row.

    Raises:
        RequestError: The entities have another form, or no columns.
    """
    columns = _columns(entities)
    if not columns:
        raise RequestError(f"entities: no columns are given. hint: {FORMS}")
    return columns


def _columns(entities: Any) -> dict[str, Any]:
    if isinstance(entities, dict):
        return entities
    if isinstance(entities, Mapping):
        return dict(entities)
    if _is_frame(entities):
        return {name: entities[name] for name in entities.columns}
    if hasattr(entities, "__arrow_c_stream__"):
        pyarrow = require("pyarrow", "get_online_features")
        try:
            table = pyarrow.table(entities)
        except (TypeError, ValueError, RuntimeError) as error:
            # A stream of a single column, such as a polars.Series.
            what = f"entities: cannot read Arrow data from a value of the type '{type(entities).__name__}'"
            raise RequestError(f"{what}: {error}. hint: {FORMS}") from None
        return dict(zip(table.column_names, table.columns))
    # Frames of Spark and of other packages have `columns`, but are not lists of rows.
    is_text_or_frame = isinstance(entities, (str, bytes)) or hasattr(type(entities), "columns")
    if is_text_or_frame or not isinstance(entities, Iterable):
        kind = type(entities).__name__
        hint = "call collect() first" if kind == "LazyFrame" else FORMS
        what = f"entities: a value of the type '{kind}' is neither a mapping, a data frame nor a list of rows"
        raise RequestError(f"{what}. hint: {hint}")
    columns: dict[str, list[Any]] = {}
    for index, row in enumerate(entities):
        if not isinstance(row, Mapping):
            raise RequestError(f"entities: row {index} is a {type(row).__name__}, not a mapping")
        if index == 0:
            columns = {name: [] for name in row}
        if row.keys() != columns.keys():
            raise RequestError(f"entities: row {index} has other names than row 0: {sorted(row)} and {sorted(columns)}")
        for name, value in row.items():
            columns[name].append(value)
    return columns
