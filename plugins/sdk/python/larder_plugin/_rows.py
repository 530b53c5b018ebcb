"""Calls a plugin's function for the rows of a batch, and collects its results and failures.

When a plugin is declared, it is known which parameters its function has, and how many outputs there are. :func:`by_row`
and :func:`by_columns` use this to choose the steps once, instead of on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat, starmap
from operator import itemgetter
from typing import Any

from . import log
from ._errors import Fault, nearest, shown
from ._frame import Column
from ._trace import location, named, trace

CONTEXT, CONFIG = -1, -2
"""The values that parameters which are not inputs have instead of the index of an input."""

Failed = dict[int, str]
"""The messages of the rows that failed, by row."""
Batch = Callable[[Sequence[Column], int, Any, object], tuple[Sequence[Column], Failed]]
"""A function of the input columns, the number of rows, the contexts, and the configuration. Returns the output columns,
which are ``None`` in failed rows. The contexts of ``by_row`` are one per row, or ``None`` if the function takes
none."""

_TEXT_MAX = 500
"""The maximum number of characters of an exception's text in a message. The log has the whole text."""

_STOPPED = "StopIteration. hint: pass a default value to next(), as in next(values, None)"
"""The message for a StopIteration. It has no line, because iterators of the standard library drop the exception."""

_FAILED = object()
"""The result of a row that failed."""


def by_row(function: Callable[..., Any], parameters: Sequence[int], outputs: Sequence[str]) -> Batch:
    """Wraps a function of one row. ``parameters`` has the index of an input for each parameter."""
    gather = _single(outputs[0]) if len(outputs) == 1 else _several(outputs)
    in_order = list(parameters) == list(range(len(parameters)))

    def compute(columns: Sequence[Column], rows: int, contexts: Any, config: object) -> tuple[Sequence[Column], Failed]:
        arguments: Any = columns
        if not in_order:
            constant = {CONTEXT: contexts, CONFIG: repeat(config, rows)}
            arguments = [columns[index] if index >= 0 else constant[index] for index in parameters]
        results: list[Any] = []
        failed: Failed = {}
        calls = map(function, *arguments) if arguments else starmap(function, repeat((), rows))
        while len(results) < rows:
            # If a row fails, `extend` keeps the results of the rows before it, and `calls` continues with the next row.
            try:
                results.extend(calls)
                if len(results) == rows:
                    break
                # An iterator ends at a StopIteration, even if the function raised it.
                message = _STOPPED
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                message = described(error, is_logged=not failed)
            failed[len(results)] = message
            results.append(_FAILED)
        return gather(results, failed), failed

    return compute


def one_row(
    function: Callable[..., Any], parameters: Sequence[int], outputs: Sequence[str]
) -> Callable[[Sequence[Any], object, object], Sequence[Any]]:
    """Wraps a function of one row as a function of the values of the inputs, the context and the configuration.

    The returned function returns the values of the outputs. It raises the exceptions of the function.
    """
    names = list(outputs)
    known = set(names)
    count = len(names)
    in_order = list(parameters) == list(range(len(parameters)))
    # The context and the configuration follow the inputs, so that the constants for them are indexes from the end.
    pick = itemgetter(*parameters) if len(parameters) > 1 else lambda values: [values[index] for index in parameters]

    def compute(values: Sequence[Any], context: object, config: object) -> Sequence[Any]:
        result = function(*values) if in_order else function(*pick((*values, config, context)))
        kind = type(result)
        if count == 1:
            if kind is not dict:
                return (result,)
        elif kind is tuple and len(result) == count:
            return result  # type: ignore[no-any-return]
        if kind is dict and result.keys() == known:
            return [result[name] for name in names]
        return _ordered(result, names)

    return compute


def by_columns(function: Callable[..., Any], parameters: Sequence[int], outputs: Sequence[str]) -> Batch:
    """Wraps a function of whole columns. The contexts are one value for all rows. An exception raises a `Fault`."""
    names = list(outputs)

    def compute(columns: Sequence[Column], rows: int, contexts: Any, config: object) -> tuple[Sequence[Column], Failed]:
        constant = {CONTEXT: contexts, CONFIG: config}
        try:
            result = function(*[columns[index] if index >= 0 else constant[index] for index in parameters])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Fault(described(error, is_logged=True)) from error
        lists = [result] if len(names) == 1 and not isinstance(result, dict) else _ordered(result, names)
        for name, values in zip(names, lists):
            if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
                raise Fault(f"output '{name}': expected a list with a value per row, got {shown(values)}")
            if len(values) != rows:
                raise Fault(f"output '{name}': {len(values)} values for {rows} rows")
        return lists, {}

    return compute


def described(error: BaseException, *, is_logged: bool) -> str:
    """Returns the message for an exception of the plugin's code. Logs the traceback, unless it is a `Fault`."""
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, StopIteration):
        return _STOPPED
    text, where = named(error), location(error)
    if is_logged:
        try:
            log.error(trace(error))
        except Exception as failure:
            # The exception is malformed, or there is no memory left for its traceback.
            log.error(f"{text}, without a traceback because of {type(failure).__name__}")
    text = text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."
    if isinstance(error, RecursionError):
        text += ". hint: use a loop; calls can be nested about 80 deep in a plugin"
    if isinstance(error, MemoryError):
        text += ". hint: use less memory, or raise 'plugins: interpreted: memory'"
    problem, has_hint, hint = text.partition(". hint: ")
    return (f"{problem} ({where})" if where else problem) + has_hint + hint


# === Results of functions of one row ===


def _single(name: str) -> Callable[[list[Any], Failed], Sequence[Column]]:
    """Returns the function that collects the results if there is one output: values, or dicts with the value."""

    def gather(results: list[Any], failed: Failed) -> Sequence[Column]:
        if failed or dict in map(type, results):
            for row, result in enumerate(results):
                results[row] = _settled(row, result, [name], failed)[0] if isinstance(result, dict) else result
            for row in failed:
                results[row] = None
        return [results]

    return gather


def _several(outputs: Sequence[str]) -> Callable[[list[Any], Failed], Sequence[Column]]:
    """Returns the function that collects the results if there are several outputs: dicts, or tuples in their order."""
    names = list(outputs)
    count = len(names)

    def gather(results: list[Any], failed: Failed) -> Sequence[Column]:
        if not results:
            return [()] * count
        kinds = {*map(type, results)}
        if kinds == {tuple} and {*map(len, results)} == {count}:
            return [*zip(*results)]
        if kinds == {dict} and {*map(len, results)} == {count}:
            try:
                return [[*map(itemgetter(name), results)] for name in names]
            except KeyError:
                pass
        return [*zip(*[_settled(row, result, names, failed) for row, result in enumerate(results)])]

    return gather


def _settled(row: int, result: Any, names: list[str], failed: Failed) -> Sequence[Any]:
    """Returns the values of the outputs in a row. If the result has another shape, the row fails."""
    if result is _FAILED:
        return [None] * len(names)
    try:
        return _ordered(result, names)
    except Fault as fault:
        failed[row] = str(fault)
        return [None] * len(names)


def _ordered(result: Any, names: list[str]) -> Sequence[Any]:
    if isinstance(result, dict):
        problem = _names_problem(result, names)
        if problem:
            raise Fault(f"the function returned {problem}")
        return [result[name] for name in names]
    if isinstance(result, (tuple, list)) and len(result) == len(names):
        return result
    raise Fault(f"the function returned {_returned(result)}; expected a dict or tuple of {_listed(names)}")


def _names_problem(result: dict[Any, Any], names: Sequence[str]) -> str:
    """Describes an error in the keys of a returned dict. Returns an empty text if there is none."""
    unknown = [name for name in result if name not in names]
    if unknown:
        return f"'{unknown[0]}', which is not an output{nearest(str(unknown[0]), names)}"
    missing = [name for name in names if name not in result]
    return f"no value for output '{missing[0]}'" if missing else ""


def _returned(result: object) -> str:
    if isinstance(result, (tuple, list)):
        return f"a {type(result).__name__} of {len(result)}"
    return "None (is a return missing?)" if result is None else shown(result)


def _listed(names: Sequence[str]) -> str:
    shown_names = ", ".join(names[:6])
    return shown_names if len(names) <= 6 else f"{shown_names}, ... ({len(names)} outputs)"
