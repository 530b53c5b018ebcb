"""The plugin as a component. Only the glue that ``larder plugin build`` writes imports this module.

No other module imports the code that is generated from the contract, because that code exists only in a component.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import wit_world  # type: ignore[import-not-found]
from componentize_py_types import Err  # type: ignore[import-not-found]
from wit_world.imports import host  # type: ignore[import-not-found]
from wit_world.imports import types as wire

from . import log
from ._declare import DeclarationError, Plugin
from ._errors import Fault
from ._instance import Instance
from ._sandbox import close, close_clocks
from ._trace import remember

_FAULTS = {
    "bad-config": wire.Fault_BadConfig,
    "bad-input": wire.Fault_BadInput,
    "internal": wire.Fault_Internal,
}
_LEVELS = {level.name.lower(): level for level in host.Level}


def world(name: str) -> type:
    """Imports a module, which must declare exactly one plugin, and returns the class that implements the component."""
    close_clocks()
    module = import_module(name)
    plugin = _only_plugin(module)
    remember(os.path.dirname(str(module.__file__)))
    signature = _signature(plugin)
    instance = Instance(plugin, wire)

    class WitWorld(wit_world.WitWorld):  # type: ignore[misc]
        """The contract's three functions."""

        def describe(self) -> Any:
            return signature

        def configure(self, config: str) -> None:
            _start()
            try:
                instance.configure(config)
            except Fault as fault:
                raise Err(_FAULTS[fault.kind](str(fault))) from None

        def transform(self, context: Any, rows: int, inputs: list[Any]) -> list[Any]:
            try:
                return instance.transform(context.as_of, rows, inputs)
            except Fault as fault:
                raise Err(_FAULTS[fault.kind](str(fault))) from None

    return WitWorld


def _start() -> None:
    """Prepares a deployed instance. The build does not call this, because it has no host and needs imports."""
    log.sink = _to_host
    sys.stdout = _Lines("info")
    sys.stderr = _Lines("warn")
    close()


def _only_plugin(module: ModuleType) -> Plugin:
    plugins = {id(value): value for value in vars(module).values() if isinstance(value, Plugin)}
    if len(plugins) != 1:
        found = ", ".join(plugin.name for plugin in plugins.values())
        problem = f"declares {len(plugins)} plugins ({found}) instead of one" if plugins else "declares no plugin"
        raise DeclarationError(f"{module.__name__}.py {problem}: put @plugin(...) on one function")
    return next(iter(plugins.values()))


def _signature(plugin: Plugin) -> Any:
    nullable = plugin.nullable_outputs

    def field(name: str, declared: Any, can_be_null: bool) -> Any:
        data_type = wire.DataType(getattr(wire.ScalarType, declared.type.scalar.upper()), declared.type.is_list)
        return wire.Field(name, data_type, can_be_null, declared.doc)

    inputs = [field(name, declared, not declared.required) for name, declared in plugin.inputs.items()]
    outputs = [
        field(name, declared, nullable or declared.nullable is not False) for name, declared in plugin.outputs.items()
    ]
    return wire.Signature(plugin.name, plugin.version, plugin.doc, inputs, outputs)


def _to_host(level: str, message: str) -> None:
    # The host only accepts UTF-8, so characters that cannot be encoded are escaped.
    host.log(_LEVELS[level], message.encode(errors="backslashreplace").decode())


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
