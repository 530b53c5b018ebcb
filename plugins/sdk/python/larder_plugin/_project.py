"""Imports the project's module, which declares the plugin."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

from ._declare import DeclarationError, Plugin
from ._modules import explanation
from ._trace import remember


def load(name: str) -> Plugin:
    """Imports the module, and returns its plugin. Raises a `DeclarationError` if it does not declare exactly one."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise DeclarationError(f"there is no {name}.py in the project")
    directory = os.path.dirname(spec.origin)
    # The source is stored for tracebacks even if the import fails.
    remember(directory)
    try:
        module = import_module(name)
    except ImportError as error:
        _explain(error, directory)
        raise
    finally:
        remember(directory)
    plugins = {id(value): value for value in vars(module).values() if isinstance(value, Plugin)}
    if len(plugins) != 1:
        found = ", ".join(plugin.name for plugin in plugins.values())
        problem = f"declares {len(plugins)} plugins ({found}) instead of one" if plugins else "declares no plugin"
        raise DeclarationError(f"{name}.py {problem}: put @plugin(...) on one function")
    return next(iter(plugins.values()))


def _explain(error: ImportError, directory: str) -> None:
    """Adds the reason to the error's message. It names the module that is missing, which a package may have caught."""
    missing: BaseException | None = error
    while missing is not None and not (isinstance(missing, ModuleNotFoundError) and missing.name):
        missing = missing.__cause__ or missing.__context__
    if isinstance(missing, ModuleNotFoundError) and missing.name:
        error.msg = explanation(missing.name, directory)
