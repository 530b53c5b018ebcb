"""Runs a plugin over rows as the host does, for the plugin's unit tests.

::

    from larder_plugin.testing import run
    from plugin import ratio

    assert run(ratio, [{"numerator": 1.0, "denominator": 4.0}, {"numerator": 1.0}]) == [{"ratio": 0.25}, {"ratio": None}]

The rows are processed like those of a request: types are checked, values of type Float32 are rounded, and rows that
lack a required input are skipped. A failed call raises :class:`larder_plugin.Fault`. If the function raised an
exception, it is the cause of the fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from . import _wire, log
from ._columns import reader, writer
from ._declare import Plugin
from ._errors import BadInput, nearest
from ._instance import _EPOCH, Instance


def run(
    plugin: Plugin,
    rows: Iterable[Mapping[str, Any]],
    *,
    config: object = None,
    as_of: int | datetime = 0,
) -> list[dict[str, Any]]:
    """Returns the outputs of each row. A row is a mapping from names of inputs to values. A missing input is null.

    ``config`` is the derived view's ``config`` block, as Python values. ``as_of`` is the time of the request, in
    microseconds since 1970 UTC or as a datetime with a time zone.
    """
    if not isinstance(plugin, Plugin):
        raise TypeError(f"expected a function that is decorated with @plugin, got {plugin!r}")
    listed = list(rows)
    for place, row in enumerate(listed):
        for name in row:
            if name not in plugin.inputs:
                raise BadInput(f"row {place}: '{name}' is not an input{nearest(name, plugin.inputs)}")
    columns = [
        writer(name, field.type, _wire, nullable=True, noun="input", error=BadInput)(
            [row.get(name) for row in listed], len(listed)
        )
        for name, field in plugin.inputs.items()
    ]
    instance = Instance(plugin, _wire)
    instance.configure(json.dumps(config))
    if isinstance(as_of, datetime):
        as_of = (as_of - _EPOCH) // timedelta(microseconds=1)
    results = instance.transform(as_of, len(listed), columns)
    lists = reader({name: field.type for name, field in plugin.outputs.items()}, _wire)(results, len(listed))
    return [dict(zip(plugin.outputs, values)) for values in zip(*lists)]


@contextmanager
def logged() -> Iterator[list[tuple[str, str]]]:
    """Collects the plugin's log lines inside the ``with`` block, as pairs of level and text."""
    lines: list[tuple[str, str]] = []
    before = log.sink
    log.sink = lambda level, message: lines.append((level, message))
    try:
        yield lines
    finally:
        log.sink = before
