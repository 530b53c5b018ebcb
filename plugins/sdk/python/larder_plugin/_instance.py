"""An instance of a plugin, which is configured once and then called with frames. Unit tests use the same code."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Container, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ._declare import Plugin
from ._errors import Fault, nearest, shown
from ._frame import Column
from ._reading import one_row_reader, rows_reader
from ._rows import Failed, described
from ._types import UnixTimestamp
from ._writing import Writer

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Context:
    """The reference time of a row: the instant for which its features are computed.

    With ``by="columns"``, the function gets a :class:`Contexts` instead.
    """

    __slots__ = ("as_of",)

    as_of: int
    """The time of the request, or the event time of a training row, in microseconds since 1970 UTC."""

    def __init__(self, as_of: int) -> None:
        self.as_of = as_of

    def __repr__(self) -> str:
        return f"Context(as_of={self.as_of})"

    @property
    def time(self) -> datetime:
        """``as_of`` as a datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self.as_of)


class Contexts:
    """The reference times of the rows of a batch."""

    __slots__ = ("as_of",)

    as_of: Sequence[int]
    """The reference time of each row, in microseconds since 1970 UTC: see :attr:`Context.as_of`."""

    def __init__(self, as_of: Sequence[int]) -> None:
        self.as_of = as_of

    def __repr__(self) -> str:
        return f"Contexts(as_of={self.as_of})"

    @property
    def time(self) -> list[datetime]:
        """``as_of`` as datetimes in UTC."""
        return [_EPOCH + timedelta(microseconds=as_of) for as_of in self.as_of]


class Instance:
    """A plugin with its current configuration."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._takes_context = plugin.takes_context
        kinds = [field.type for field in plugin.inputs.values()]
        if plugin.takes_context:
            kinds.insert(0, UnixTimestamp)
        self._read_one, self._read_rows = one_row_reader(kinds), rows_reader(kinds)
        self._writer = Writer(
            [(name, field.type, field.nullable is not False) for name, field in plugin.outputs.items()]
        )
        self._null_row = self._writer.null_row()
        self._required = [index for index, field in enumerate(plugin.inputs.values()) if field.required]
        self._batch = plugin.batch
        self._one_row = plugin.one_row
        self._config: Any = None
        if plugin.config is None or not _lacks_default(plugin.config):
            self.configure("null")

    def configure(self, text: str) -> None:
        """Sets the configuration: the derived view's ``config`` block, as JSON. Raises a `Fault` if it is invalid."""
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise Fault(f"the config is not valid JSON: {error}") from error
        plugin = self._plugin
        if not plugin.takes_config:
            if parsed not in (None, {}):
                raise Fault(f"plugin '{plugin.name}' takes no config, got {shown(parsed)}")
        elif plugin.config is None:
            self._config = parsed
        else:
            self._config = _settled(plugin.config, parsed)

    def transform(self, rows: int, frame: bytes) -> tuple[bytes, Failed]:
        """Computes a frame of outputs from a frame of inputs. Returns it with the messages of the rows that failed.

        Raises a `Fault` if the whole batch failed.
        """
        if rows == 1 and self._one_row is not None:
            return self._transform_one(frame)
        columns: Sequence[Column] = self._read_rows(frame, rows)
        contexts: Any = None
        if self._takes_context:
            as_of, *columns = columns
            contexts = self._contexts(as_of)
        lacking = [columns[index] for index in self._required if None in columns[index]]
        if not lacking:
            results, failed = self._batch(columns, rows, contexts, self._config)
            return self._written(results, rows, failed, failed)
        kept = [row for row, values in enumerate(zip(*lacking)) if None not in values]
        results = [()] * len(self._plugin.outputs)
        failed = {}
        if kept:
            columns = [[column[row] for row in kept] for column in columns]
            if self._takes_context:
                contexts = self._contexts([as_of[row] for row in kept])
            results, failed = self._batch(columns, len(kept), contexts, self._config)
        failed = {kept[row]: message for row, message in failed.items()}
        full = []
        for values in results:
            column: list[Any] = [None] * rows
            for row, value in zip(kept, values):
                column[row] = value
            full.append(column)
        return self._written(full, rows, failed, {*range(rows)}.difference(kept).union(failed))

    def _contexts(self, as_of: Sequence[int]) -> Any:
        return Contexts(as_of) if self._one_row is None else [*map(Context, as_of)]

    def _written(
        self, columns: Sequence[Column], rows: int, failed: Failed, exempt: Container[int]
    ) -> tuple[bytes, Failed]:
        frame, unfit = self._writer.write(columns, rows, exempt)
        return frame, dict(sorted({**failed, **unfit}.items()))

    def _transform_one(self, frame: bytes) -> tuple[bytes, Failed]:
        """Does the same as `transform` for one row of a function of rows, in less time."""
        values = self._read_one(frame)
        context = None
        if self._takes_context:
            context = Context(values[0])
            values = values[1:]
        for index in self._required:
            if values[index] is None:
                return self._null_row, {}
        try:
            results = self._one_row(values, context, self._config)  # type: ignore[misc]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self._null_row, {0: described(error, is_logged=True)}
        return self._writer.write_one(results)


# === Configuration ===

_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}


def _lacks_default(config: type) -> bool:
    return any(_needed(field) for field in dataclasses.fields(config))


def _needed(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _settled(config: type, parsed: object) -> object:
    """Converts the configuration to the declared dataclass."""
    if parsed is None:
        parsed = {}
    if not isinstance(parsed, dict):
        raise Fault(f"the config must be an object, got {shown(parsed)}")
    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    for name in parsed:
        if name not in fields:
            raise Fault(f"unknown key '{name}' in the config{nearest(name, fields)}")
    for name, field in fields.items():
        if name not in parsed and _needed(field):
            raise Fault(f"required key '{name}' is missing in the config")
    hints = typing.get_type_hints(config)
    values = {name: _fitted(name, value, hints.get(name)) for name, value in parsed.items()}
    try:
        return config(**values)
    except (TypeError, ValueError) as error:
        raise Fault(f"config: {error}") from error


def _fitted(name: str, value: object, hint: object) -> object:
    """Checks that a value has the type of its field's annotation, and converts an int to a float if needed.

    Returns values of fields with other annotations than float, int, bool and str unchanged.
    """
    if hint not in _NAMES or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise Fault(f"config '{name}' must be {_NAMES[hint]}, got {shown(value)}")
