"""Derived features for Larder, written as plain functions.

A plugin is a function of one row, with declared inputs and outputs::

    from larder_plugin import Float64, plugin

    @plugin(
        name="ratio",
        version="1.0.0",
        inputs={"numerator": Float64("The numerator."), "denominator": Float64("The denominator.")},
        outputs={"ratio": Float64("The ratio; null if an input is null or the denominator is 0.")},
    )
    def ratio(numerator, denominator):
        if numerator is None or not denominator:
            return None
        return numerator / denominator

A missing value is ``None``. The function gets its inputs by name. It returns a dict, or a tuple in the order of the
outputs. If there is only one output, it may return the value itself. If it raises an exception, the row fails: its
outputs are null, and the other rows are served. See :func:`plugin` for functions of whole columns, required inputs, the
configuration and the time of the request. Use :mod:`larder_plugin.testing` to run a plugin in a unit test as the host
does.

A plugin has no files, network, clock, randomness or threads. Calls that need them raise an exception with a hint.
Modules are imported when the plugin is built, so put every ``import`` at the top of a file. Data that the plugin reads
from files during the import becomes part of the component.
"""

from . import log
from ._declare import Plugin, plugin
from ._errors import DeclarationError, Fault
from ._instance import Context, Contexts
from ._types import (
    Array,
    Bool,
    Bytes,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Type,
    UnixTimestamp,
)

__version__ = "0.3.0"

__all__ = [
    "Array",
    "Bool",
    "Bytes",
    "Context",
    "Contexts",
    "DeclarationError",
    "Fault",
    "Field",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Plugin",
    "String",
    "Type",
    "UnixTimestamp",
    "log",
    "plugin",
]
