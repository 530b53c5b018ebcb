"""An instance of a plugin, which is configured once and then called with columns. Unit tests use the same code."""

from __future__ import annotations

import dataclasses
import json
import typing
from datetime import datetime, timedelta, timezone
from typing import Any

from . import log
from ._columns import Wire, reader, writer
from ._declare import Plugin
from ._errors import BadConfig, Fault, Internal, nearest, shown
from ._trace import place, trace

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Context:
    """Data of a call in addition to the inputs. The host sets it, and sets it again when training data is generated."""

    __slots__ = ("as_of",)

    as_of: int
    """The time of the request, or the event time of training rows, in microseconds since 1970 UTC."""

    def __init__(self, as_of: int) -> None:
        self.as_of = as_of

    def __repr__(self) -> str:
        return f"Context(as_of={self.as_of})"

    @property
    def time(self) -> datetime:
        """``as_of`` as a datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self.as_of)


class Instance:
    """A plugin with its current configuration."""

    def __init__(self, plugin: Plugin, wire: Wire) -> None:
        nullable = plugin.nullable_outputs
        self._plugin = plugin
        self._read = reader({name: field.type for name, field in plugin.inputs.items()}, wire)
        self._writers = [
            writer(name, field.type, wire, nullable=nullable or field.nullable is not False)
            for name, field in plugin.outputs.items()
        ]
        # If a row lacks a required input, all of its outputs are null, even if they have nullable=False. In other rows,
        # None in such an output is an error.
        self._never = [
            (place, name)
            for place, (name, field) in enumerate(plugin.outputs.items())
            if nullable and field.nullable is False
        ]
        self._required = [place for place, field in enumerate(plugin.inputs.values()) if field.required]
        self._batch = plugin.batch
        self._takes_context = plugin.takes_context
        self._config: Any = None
        if plugin.config is None or not _lacks_default(plugin.config):
            self.configure("null")

    def configure(self, text: str) -> None:
        """Sets the configuration: the ``config`` block of the derived view, as JSON."""
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise BadConfig(f"the config is not valid JSON: {error}") from error
        plugin = self._plugin
        if not plugin.takes_config:
            if parsed not in (None, {}):
                raise BadConfig(f"plugin '{plugin.name}' takes no config, got {shown(parsed)}")
        elif plugin.config is None:
            self._config = parsed
        else:
            self._config = _settled(plugin.config, parsed)

    def transform(self, as_of: int, rows: int, inputs: list[Any]) -> list[Any]:
        """Computes columns of outputs from columns of inputs, in the contract's types. Raises a `Fault` on errors."""
        columns = self._read(inputs, rows)
        try:
            context = Context(as_of) if self._takes_context else None
            results = self._batch(columns, rows, context, self._config)
        except Fault:
            raise
        except BaseException as error:
            raise _crash(error) from error
        if self._never:
            self._check_never(columns, results)
        return [write(values, rows) for write, values in zip(self._writers, results)]

    def _check_never(self, columns: list[list[Any]], results: list[list[Any]]) -> None:
        required = [columns[place] for place in self._required]
        for place_, name in self._never:
            for row, value in enumerate(results[place_]):
                if value is None and all(column[row] is not None for column in required):
                    raise Internal(f"output '{name}', row {row}: got None, but the output has nullable=False")


def _crash(error: BaseException) -> Internal:
    """Returns the fault for an exception, and logs its traceback."""
    log.error(trace(error))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    row = getattr(error, "row", None)
    where = ", ".join(part for part in (place(error), "" if row is None else f"row {row}") if part)
    return Internal(f"{text} ({where})" if where else text)


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
        raise BadConfig(f"the config must be an object, got {shown(parsed)}")
    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    for name in parsed:
        if name not in fields:
            raise BadConfig(f"unknown key '{name}' in the config{nearest(name, fields)}")
    for name, field in fields.items():
        if name not in parsed and _needed(field):
            raise BadConfig(f"required key '{name}' is missing in the config")
    hints = typing.get_type_hints(config)
    values = {name: _fitted(name, value, hints.get(name)) for name, value in parsed.items()}
    try:
        return config(**values)
    except (TypeError, ValueError) as error:
        raise BadConfig(f"config: {error}") from error


def _fitted(name: str, value: object, hint: object) -> object:
    """Checks that a value has the type of its field's annotation, and converts an int to a float if needed.

    Returns values of fields with other annotations than float, int, bool and str unchanged.
    """
    if hint not in _NAMES or type(value) is hint:
        return value
    if hint is float and type(value) is int:
        return float(value)
    raise BadConfig(f"config '{name}' must be {_NAMES[hint]}, got {shown(value)}")
