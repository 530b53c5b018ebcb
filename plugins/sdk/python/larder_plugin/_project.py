"""Imports the project's module, which declares the plugin."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

from . import _types
from ._declare import Plugin, declared
from ._errors import DeclarationError, nearest
from ._modules import explanation
from ._sandbox import ENVIRONMENT
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
    except Exception as error:
        _explain(error, directory)
        raise
    finally:
        remember(directory)
    imported = [value for value in vars(module).values() if isinstance(value, Plugin)]
    plugins = {id(plugin): plugin for plugin in imported + [own for own in declared if own.__module__ == name]}
    if len(plugins) != 1:
        found = ", ".join(plugin.name for plugin in plugins.values())
        problem = f"declares {len(plugins)} plugins ({found}) instead of one" if plugins else "declares no plugin"
        raise DeclarationError(f"{name}.py {problem}: put @plugin(...) on one function")
    return next(iter(plugins.values()))


def is_explained(error: BaseException) -> bool:
    """Returns whether :func:`load` has added advice to the error, which is then the same in every interpreter."""
    return bool(getattr(error, "_is_explained", False))


def _explain(error: Exception, directory: str) -> None:
    """Adds the reason and a hint to the message of an error."""
    if isinstance(error, ImportError):
        missing = _missing_module(error)
        if missing is not None:
            error.msg = explanation(missing, directory)
            return
    advice = _advice(error)
    if advice is None:
        return
    if isinstance(error, ImportError):
        error.msg = advice
    else:
        error.add_note(advice)
    error._is_explained = True  # type: ignore[attr-defined]


def _missing_module(error: ImportError) -> str | None:
    """Returns the name of the module that is missing. A package may have caught the original error."""
    missing: BaseException | None = error
    while missing is not None and not (isinstance(missing, ModuleNotFoundError) and missing.name):
        missing = missing.__cause__ or missing.__context__
    return missing.name if isinstance(missing, ModuleNotFoundError) else None


def _advice(error: Exception) -> str | None:
    if isinstance(error, ImportError):
        if "relative import" in str(error):
            return (
                "a relative import does not work in plugin.py, because the project is not a package. hint: write "
                "'import NAME' or 'from NAME import ...' without the dot"
            )
        if error.name == __package__:
            name = str(error).split("'")[1]
            types = [known for known, value in vars(_types).items() if isinstance(value, _types.Type)]
            known = [*types, "Array", "Context", "Contexts", "Fault", "log", "plugin", "testing"]
            similar = nearest(name, known) or f". hint: the types are {', '.join(types)} and Array"
            return f"larder_plugin has no '{name}'{similar}"
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        file = os.path.basename(str(error.filename))
        return f"hint: put the file into the project, and open pathlib.Path(__file__).with_name('{file}')"
    if isinstance(error, KeyError) and _raised_in(error, os.__file__):
        return f"os.environ: {ENVIRONMENT}"
    return None


def _raised_in(error: Exception, path: str) -> bool:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename in (path, "<frozen os>")
