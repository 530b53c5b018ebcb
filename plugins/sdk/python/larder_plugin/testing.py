"""Runs a plugin over rows as the host does, for the plugin's unit tests.

::

    from larder_plugin.testing import Failed, run
    from plugin import ratio

    assert run(ratio, [{"numerator": 1.0, "denominator": 4.0}, {"numerator": 1.0}]) == [{"ratio": 0.25}, {"ratio":
    None}]

The rows are processed like those of a request: types are checked, values of type Float32 are rounded, and rows that
lack a required input are skipped. A row that fails has a :class:`Failed` as its result.

The rows are computed as one batch, then each row alone, and then as the reversed batch, because the host may divide
a batch at any row. If a row's results differ, :func:`run` raises an `AssertionError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from struct import pack
from typing import Any

from . import log
from ._declare import Plugin
from ._errors import Fault, nearest, shown
from ._instance import _EPOCH, Instance
from ._reading import rows_reader
from ._types import UnixTimestamp
from ._writing import Writer


@dataclass(frozen=True)
class Failed:
    """The result of a row that failed. All of its outputs are null."""

    message: str
    """The message that the host reports, such as ``ValueError: no rate (plugin.py:12, in derive)``."""


Result = dict[str, Any] | Failed
"""The outputs of a row, or its failure."""


def run(
    plugin: Plugin,
    rows: Iterable[Mapping[str, Any]],
    *,
    config: object = None,
    as_of: int | datetime | Sequence[int | datetime] = 0,
) -> list[Result]:
    """Returns the outputs of each row. A row is a mapping from names of inputs to values. A missing input is null.

    ``config`` is the derived view's ``config`` block, as Python values; a :class:`Fault` is raised if the plugin
    rejects it. ``as_of`` is the reference time of all rows, in microseconds since 1970 UTC or as a datetime with a
    time zone, or a list with one reference time per row.
    """
    if not isinstance(plugin, Plugin):
        raise TypeError(f"expected a function that is decorated with @plugin, got {plugin!r}")
    listed = list(rows)
    for index, row in enumerate(listed):
        for name in row:
            if name not in plugin.inputs:
                raise ValueError(f"row {index}: '{name}' is not an input{nearest(name, plugin.inputs)}")
    instants = [*map(_micros, as_of)] if isinstance(as_of, Sequence) else [_micros(as_of)] * len(listed)
    if len(instants) != len(listed):
        raise ValueError(f"as_of has {len(instants)} times for {len(listed)} rows")
    instance = Instance(plugin)
    instance.configure(json.dumps(config))
    fields = [(name, field.type, True) for name, field in plugin.inputs.items()]
    if plugin.takes_context:
        fields.insert(0, ("as_of", UnixTimestamp, True))
    writer = Writer(fields, noun="input")
    read = rows_reader([field.type for field in plugin.outputs.values()])

    def call(order: Sequence[int]) -> list[Result]:
        columns = [[listed[row].get(name) for row in order] for name in plugin.inputs]
        if plugin.takes_context:
            columns.insert(0, [instants[row] for row in order])
        inputs, unfit = writer.write(columns, len(order), ())
        for row, message in unfit.items():
            raise ValueError(f"row {order[row]}: {message}")
        try:
            outputs, failed = instance.transform(len(order), inputs)
        except Fault as fault:
            # The host tries parts of a batch that failed.
            return [Failed(str(fault))] if len(order) == 1 else [result for row in order for result in call([row])]
        results: list[Result] = [
            dict(zip(plugin.outputs, map(_plain, values))) for values in zip(*read(outputs, len(order)))
        ]
        for row, message in failed.items():
            results[row] = Failed(message)
        return results

    order = range(len(listed))
    results = call(order)
    _check_other_batches(call, results)
    return results


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


def _micros(as_of: int | datetime) -> int:
    return (as_of - _EPOCH) // timedelta(microseconds=1) if isinstance(as_of, datetime) else as_of


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, memoryview) else value


def _check_other_batches(call: Callable[[Sequence[int]], list[Result]], results: list[Result]) -> None:
    # The log has the lines of the first calls only.
    with logged():
        for row, result in enumerate(results):
            _check_same(row, result, call([row])[0], "alone")
        backward = range(len(results))[::-1]
        for row, again in zip(backward, call(backward)):
            _check_same(row, results[row], again, "in the reversed batch")


def _check_same(row: int, first: Result, again: Result, where: str) -> None:
    if _bits(first) == _bits(again):
        return
    names = first if isinstance(first, dict) and isinstance(again, dict) else {}
    for name in names:
        if _bits(first[name]) != _bits(again[name]):  # type: ignore[index]
            first, again, where = first[name], again[name], f"{where}, in output '{name}'"  # type: ignore[index]
            break
    raise AssertionError(
        f"row {row}: the result is {shown(first)} in the batch, but {shown(again)} {where}. "
        "hint: a row's outputs must not depend on other rows or on earlier calls"
    )


def _bits(value: Any) -> Any:
    """Returns an object that is equal for equal results, including the bits of floats."""
    if isinstance(value, float):
        return pack("<d", value)
    if isinstance(value, list):
        return [*map(_bits, value)]
    return {name: _bits(item) for name, item in value.items()} if isinstance(value, dict) else value
