"""The decorator that turns a function into a plugin."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from ._errors import DeclarationError, nearest, shown
from ._rows import CONFIG, CONTEXT, Batch, by_columns, by_row, one_row
from ._types import Field, Type

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_CONSTANTS = {"context": CONTEXT, "config": CONFIG}

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


declared: list[Plugin] = []
"""All declared plugins, even if a module has replaced one by another of the same name."""


class Plugin:
    """A declared plugin. Calling it calls the decorated function."""

    name: str
    version: str
    doc: str
    inputs: dict[str, Field]
    outputs: dict[str, Field]
    config: type | None
    """The dataclass of the configuration, or ``None`` if the decorator got none."""
    takes_config: bool
    takes_context: bool
    batch: Batch
    """The decorated function, wrapped as a function of whole columns."""
    one_row: Callable[[Sequence[Any], object, object], Sequence[Any]] | None
    """With ``by="row"``, the decorated function, wrapped as a function of the values of one row."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<plugin {self.name} {self.version}>"

    @property
    def nullable_outputs(self) -> bool:
        """Whether every output can be null, because rows may lack a required input."""
        return any(field.required for field in self.inputs.values())


def _with_checked_arguments(decorator: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Reports missing and misspelled arguments of a decorator as mistakes in the declaration."""
    parameters = inspect.signature(decorator).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]

    @functools.wraps(decorator)
    def checked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        example = "as in @plugin(name=..., version=..., inputs=..., outputs=...)"
        if args and callable(args[0]):
            raise DeclarationError(f"@plugin needs arguments, {example}")
        if args:
            raise DeclarationError(f"the arguments of @plugin must be named, {example}; got {shown(args[0])}")
        for name in kwargs:
            if name not in parameters:
                raise DeclarationError(f"@plugin has no argument {name!r}{nearest(name, parameters)}")
        missing = [name for name in required if name not in kwargs]
        if missing:
            noun = "argument" if len(missing) == 1 else "arguments"
            raise DeclarationError(f"@plugin needs the {noun} {', '.join(missing)}, {example}")
        return decorator(*args, **kwargs)

    return checked


@_with_checked_arguments
def plugin(
    *,
    name: str,
    version: str,
    inputs: Mapping[str, Field],
    outputs: Mapping[str, Field],
    by: Literal["row", "columns"] = "row",
    config: type | None = None,
) -> Callable[[Callable[..., Any]], Plugin]:
    """Turns a function into a plugin. The function's docstring, or else its module's, becomes the plugin's doc.

    The function needs a parameter for each input, with the same name. The order does not matter. It may have two more
    parameters:

    * ``context``, with the reference time of the row, :attr:`Context.as_of`. With ``by="columns"``, it is a
      :class:`Contexts`, with one reference time per row. Use it instead of a clock: a plugin has none.
    * ``config``, the derived view's ``config`` block. If the decorator gets a dataclass as ``config``, the argument is
      an instance of the dataclass, and names and types are checked. Otherwise, the argument is the parsed JSON.

    With ``by="row"``, the function is called for each row. It returns a dict by output, or a tuple in the order of the
    outputs. If there is only one output, it may return the value itself. With ``by="columns"``, the function is called
    once for all rows of a batch. The arguments are lists, and the function returns a dict or a tuple of lists of the
    same length.

    If a function of a row raises an exception, or returns a value that does not match the outputs, this row fails. Its
    outputs are null, and the other rows are served. The host logs the traceback of the first failed row of a batch. If
    a function of columns raises an exception, the batch fails, and the host calls it again with parts of the batch.

    The same inputs must give the same result, regardless of earlier calls and of the other rows of the batch.
    """

    def declare(function: Callable[..., Any]) -> Plugin:
        if not callable(function):
            raise DeclarationError(f"@plugin must decorate a function, got {function!r}")
        mistakes: list[str] = []
        if isinstance(function, type):
            mistakes.append(f"@plugin decorates the class {function.__name__}; decorate a function instead")
        elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            mistakes.append(f"{_called(function)} is async; remove 'async', because a plugin has one thread")
        elif inspect.isgeneratorfunction(function):
            mistakes.append(f"{_called(function)} has a 'yield'; return the outputs instead")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(f"name {name!r}: must be a letter or _, followed by letters, digits and _")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            mistakes.append(f"version {version!r}: must be three numbers, as in '1.0.0'")
        if by not in ("row", "columns"):
            mistakes.append(f"by={by!r}: must be 'row' or 'columns'")
        if config is not None and not (isinstance(config, type) and dataclasses.is_dataclass(config)):
            mistakes.append(f"config={config!r}: must be a dataclass")
        _check_fields("input", inputs, mistakes)
        _check_fields("output", outputs, mistakes)
        if isinstance(outputs, Mapping) and not outputs:
            mistakes.append("there are no outputs; declare at least one")
        indexes: list[int] = []
        if isinstance(inputs, Mapping) and not isinstance(function, type):
            indexes = _indexes(function, list(inputs), mistakes)
        if by == "columns" and not any(index >= 0 for index in indexes) and not mistakes:
            mistakes.append("by='columns' requires an input: without one, the number of rows is unknown")
        if config is not None and CONFIG not in indexes:
            mistakes.append(f"a config is declared, but {_called(function)} has no parameter 'config'")
        if mistakes:
            listed = "\n".join(f"  {mistake}" for mistake in mistakes)
            raise DeclarationError(f"plugin {name!r} is declared incorrectly:\n{listed}")

        made = Plugin(function)
        made.name, made.version = name, version
        module = sys.modules.get(function.__module__)
        made.doc = inspect.cleandoc(function.__doc__ or getattr(module, "__doc__", None) or "")
        made.inputs, made.outputs = dict(inputs), dict(outputs)
        made.config, made.takes_config, made.takes_context = config, CONFIG in indexes, CONTEXT in indexes
        made.batch = (by_row if by == "row" else by_columns)(function, indexes, list(outputs))
        made.one_row = one_row(function, indexes, list(outputs)) if by == "row" else None
        declared.append(made)
        return made

    return declare


def _check_fields(noun: str, fields: object, mistakes: list[str]) -> None:
    if not isinstance(fields, Mapping):
        mistakes.append(f"{noun}s: must be a dict by name, got {fields!r}")
        return
    for name, field in fields.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(f"{noun} {name!r}: a name must be a letter or _, followed by letters, digits and _")
        if isinstance(field, Type):
            mistakes.append(f'{noun} {name!r}: add a description, as in {field}("...")')
        elif not isinstance(field, Field):
            mistakes.append(f'{noun} {name!r}: must be a type with a description, as in Float64("..."); got {field!r}')
        elif noun == "input" and field.nullable is not None:
            mistakes.append(f"input {name!r}: nullable is only for outputs; use required=True for inputs")
        elif noun == "output" and field.required is not None:
            mistakes.append(f"output {name!r}: required is only for inputs; use nullable=False for outputs")


def _indexes(function: Callable[..., Any], inputs: list[str], mistakes: list[str]) -> list[int]:
    """Returns the source of each parameter: the index of an input, or a negative constant for context and config."""
    indexes = []
    parameters = inspect.signature(function).parameters
    called = _called(function)
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            mistakes.append(f"{called} takes {parameter}; name each input as a parameter instead")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            mistakes.append(f"parameter {name!r} of {called} is keyword-only, but parameters are passed by position")
        elif name in inputs:
            indexes.append(inputs.index(name))
        elif name in _CONSTANTS:
            indexes.append(_CONSTANTS[name])
        else:
            free = [known for known in [*inputs, *_CONSTANTS] if known not in parameters]
            mistakes.append(f"parameter {name!r} of {called} is not an input{nearest(name, free)}")
    for name in inputs:
        if name not in parameters:
            mistakes.append(f"input {name!r} is not a parameter of {called}")
    return indexes


def _called(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', 'the function')}()"
