"""Derived features for Larder, written as plain functions.

A plugin declares its inputs and its outputs, and is a function of one row::

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

A missing value is ``None``. The function gets its inputs by name, and returns a dict, a tuple in the order of the
outputs, or, for a single output, its value. See :func:`plugin` for whole columns, required inputs, configuration and
the time of the request, and :mod:`larder_plugin.testing` to run a plugin in a unit test as the host does.

A deployed plugin has no files, no network, no clock and no randomness. Its modules are imported when it is built, so
put every ``import`` at the top of a file.
"""

from . import log
from ._declare import DeclarationError, Plugin, plugin
from ._errors import BadConfig, BadInput, Fault, Internal
from ._instance import Context
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

__version__ = "0.1.0"

__all__ = [
    "Array",
    "BadConfig",
    "BadInput",
    "Bool",
    "Bytes",
    "Context",
    "DeclarationError",
    "Fault",
    "Field",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Internal",
    "Plugin",
    "String",
    "Type",
    "UnixTimestamp",
    "log",
    "plugin",
]
