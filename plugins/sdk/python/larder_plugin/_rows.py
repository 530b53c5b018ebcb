"""Wraps a plugin's function as a function of whole columns.

When a plugin is declared, it is known whether its function takes rows or columns, which parameters and required inputs
it has, and how many outputs. :func:`batch` uses this to choose the wrapper once, instead of on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from ._errors import Internal, nearest, shown

Columns = list[list[Any]]
"""A list for each input or output, with a value or ``None`` for each row."""
Batch = Callable[[Columns, int, object, object], Columns]
"""A function of the input columns, the number of rows, the context and the configuration. Returns output columns."""

CONTEXT, CONFIG = -1, -2
"""The values that parameters which are not inputs have instead of the index of an input."""


def batch(
    function: Callable[..., Any],
    parameters: Sequence[int],
    outputs: Sequence[str],
    *,
    by: str,
    required: Sequence[int],
) -> Batch:
    """Wraps ``function`` as a function of columns. ``parameters`` has the index of an input for each parameter."""
    compute = _by_row(function, parameters, outputs) if by == "row" else _by_columns(function, parameters, outputs)
    return _where_present(compute, required, len(outputs)) if required else compute


def _by_row(function: Callable[..., Any], parameters: Sequence[int], outputs: Sequence[str]) -> Batch:
    gather = _single(outputs[0]) if len(outputs) == 1 else _several(outputs)
    plain = all(place >= 0 for place in parameters)
    in_order = list(parameters) == list(range(len(parameters)))

    def compute(columns: Columns, rows: int, context: object, config: object) -> Columns:
        results: list[Any] = []
        if plain:
            arguments: list[Any] = columns if in_order else [columns[place] for place in parameters]
        else:
            constant = {CONTEXT: context, CONFIG: config}
            arguments = [columns[place] if place >= 0 else repeat(constant[place], rows) for place in parameters]
        try:
            if rows == 1:
                # Most requests are for one entity, and for one row this takes half of the time.
                results = [function(*[value for (value,) in arguments])]
            else:
                # If a row fails, `extend` keeps the results of the rows before it, so their number is the index of the row.
                results.extend(map(function, *arguments) if arguments else (function() for _ in range(rows)))
        except Exception as error:
            error.row = len(results)  # type: ignore[attr-defined]
            raise
        return gather(results)

    return compute


def _by_columns(function: Callable[..., Any], parameters: Sequence[int], outputs: Sequence[str]) -> Batch:
    names = list(outputs)

    def compute(columns: Columns, rows: int, context: object, config: object) -> Columns:
        constant = {CONTEXT: context, CONFIG: config}
        result = function(*[columns[place] if place >= 0 else constant[place] for place in parameters])
        if isinstance(result, dict):
            problem = _names_problem(result, names)
            if problem:
                raise Internal(f"the function returned {problem}")
            lists = [result[name] for name in names]
        elif len(names) == 1:
            lists = [result]
        elif isinstance(result, (tuple, list)) and len(result) == len(names):
            lists = list(result)
        else:
            raise Internal(f"the function returned {_returned(result)}; expected a dict or tuple of {_listed(names)}")
        for name, values in zip(names, lists):
            if not isinstance(values, (list, tuple)):
                raise Internal(f"output '{name}': expected a list with a value per row, got {shown(values)}")
        return lists

    return compute


def _where_present(compute: Batch, required: Sequence[int], outputs: int) -> Batch:
    """Skips rows that lack a required input. All outputs of these rows are ``None``."""

    def present(columns: Columns, rows: int, context: object, config: object) -> Columns:
        lacking = [columns[place] for place in required if None in columns[place]]
        if not lacking:
            return compute(columns, rows, context, config)
        kept = [row for row, values in enumerate(zip(*lacking)) if None not in values]
        if not kept:
            return [[None] * rows for _ in range(outputs)]
        try:
            results = compute([[column[row] for row in kept] for column in columns], len(kept), context, config)
        except Exception as error:
            if hasattr(error, "row"):
                error.row = kept[error.row]
            raise
        full: Columns = []
        for values in results:
            if len(values) != len(kept):
                # The writer reports the wrong length, with the name of the output.
                return results
            column: list[Any] = [None] * rows
            for row, value in zip(kept, values):
                column[row] = value
            full.append(column)
        return full

    return present


# === Results of functions of one row ===


class _Misshapen(Internal):
    """A row's result does not match the outputs."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(row, problem)
        self.row = row
        self.problem = problem

    def __str__(self) -> str:
        # The message is formatted here, because `row` changes if rows were skipped.
        return f"row {self.row}: the function returned {self.problem}"


def _single(name: str) -> Callable[[list[Any]], Columns]:
    """Returns the function that collects the results if there is one output: values, or dicts with the value."""

    def gather(results: list[Any]) -> Columns:
        if dict in map(type, results):
            for row, result in enumerate(results):
                if isinstance(result, dict):
                    _check_row(row, result, [name])
            results = [result[name] if isinstance(result, dict) else result for result in results]
        return [results]

    return gather


def _several(outputs: Sequence[str]) -> Callable[[list[Any]], Columns]:
    """Returns the function that collects the results if there are several outputs: dicts, or tuples in their order."""
    names = list(outputs)
    known = set(names)
    count = len(names)

    def gather(results: list[Any]) -> Columns:
        if len(results) == 1:
            [result] = results
            if type(result) is tuple and len(result) == count:
                return [[value] for value in result]
            if type(result) is dict and result.keys() == known:
                return [[result[name]] for name in names]
        kinds = {*map(type, results)}
        if kinds == {dict}:
            try:
                columns = [[result[name] for result in results] for name in names]
            except KeyError:
                columns = []
            if columns and {*map(len, results)} == {count}:
                return columns
        elif kinds == {tuple} and {*map(len, results)} == {count}:
            return [*map(list, zip(*results))]
        rows = [ordered(row, result) for row, result in enumerate(results)]
        return [list(values) for values in zip(*rows)] if rows else [[] for _ in names]

    def ordered(row: int, result: Any) -> Sequence[Any]:
        if isinstance(result, dict):
            _check_row(row, result, names)
            return [result[name] for name in names]
        if isinstance(result, (tuple, list)) and len(result) == count:
            return result
        raise _Misshapen(row, f"{_returned(result)}; expected a dict or tuple of {_listed(names)}")

    return gather


def _check_row(row: int, result: dict[Any, Any], names: Sequence[str]) -> None:
    problem = _names_problem(result, names)
    if problem:
        raise _Misshapen(row, problem)


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
