"""The plugin as a component. Only the glue that ``larder plugin build`` writes imports this module.

No other module imports the code that is generated from the contract, because that code exists only in a component.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import wit_world  # type: ignore[import-not-found]
from componentize_py_types import Err  # type: ignore[import-not-found]
from wit_world.imports import host  # type: ignore[import-not-found]
from wit_world.imports import types as wire

from . import log
from ._declare import Plugin
from ._instance import Instance
from ._project import load
from ._rows import described
from ._sandbox import Sandbox

_LEVELS = {level.name.lower(): level for level in host.Level}


def world(name: str) -> type:
    """Imports a module, which must declare exactly one plugin, and returns the class that implements the component."""
    sandbox = Sandbox()
    plugin = load(name)
    signature = _signature(plugin)
    instance = Instance(plugin)
    transform = instance.transform
    make_batch, make_row = wire.Batch, wire.FailedRow
    start = _starter(sandbox)

    class WitWorld(wit_world.WitWorld):  # type: ignore[misc]
        """The contract's three functions."""

        def describe(self) -> Any:
            return signature

        def configure(self, config: str) -> None:
            start()
            try:
                instance.configure(config)
            except BaseException as error:
                raise Err(_utf8(described(error, is_logged=True))) from None

        def transform(self, rows: int, inputs: bytes) -> Any:
            try:
                outputs, failed = transform(rows, inputs)
            except BaseException as error:
                raise Err(_utf8(described(error, is_logged=True))) from None
            return make_batch(outputs, [make_row(row, _utf8(message)) for row, message in failed.items()])

    return WitWorld


def _starter(sandbox: Sandbox) -> Callable[[], None]:
    """Returns the function that prepares a deployed instance.

    The build does not call it, because it has no host, and needs files and imports.
    """
    apply = sandbox.deployment()
    streams = _Lines("info"), _Lines("warn")

    def start() -> None:
        log.sink = _to_host
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = streams  # type: ignore[assignment, misc]
        apply()

    # The collector does not examine the modules again, which makes calls faster, and leaves their memory shared.
    gc.collect()
    gc.freeze()
    return start


def _signature(plugin: Plugin) -> Any:
    nullable = plugin.nullable_outputs

    def field(name: str, declared: Any, can_be_null: bool) -> Any:
        kind = declared.type
        data_type = wire.DataType(getattr(wire.ScalarType, kind.scalar.upper()), kind.is_list)
        return wire.Field(name, data_type, can_be_null, kind.nullable_items, declared.doc)

    inputs = [field(name, declared, not declared.required) for name, declared in plugin.inputs.items()]
    outputs = [
        field(name, declared, nullable or declared.nullable is not False) for name, declared in plugin.outputs.items()
    ]
    return wire.Signature(plugin.name, plugin.version, plugin.doc, plugin.takes_context, inputs, outputs)


def _to_host(level: str, message: str) -> None:
    host.log(_LEVELS[level], _utf8(message))


def _utf8(text: str) -> str:
    """Escapes characters that cannot be encoded as UTF-8, because the host does not accept them."""
    return text.encode(errors="backslashreplace").decode()


class _Lines:
    """A text stream whose lines go to the log, so that output of ``print`` is not lost."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, level: str) -> None:
        self._level = level
        self._started = ""

    def write(self, text: str) -> int:
        *lines, self._started = (self._started + text).split("\n")
        for line in lines:
            _to_host(self._level, line)
        return len(text)

    def flush(self) -> None:
        """Does nothing, because a line is written as soon as it ends."""

    def isatty(self) -> bool:
        return False
