"""The modules that a component cannot import, the reasons, and the modules that it needs later."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

_NO_FILES = "a plugin has no files. hint: read data with open() at the top of a module, and remove this import"
_NO_NETWORK = "a plugin has no network. hint: pass the data as inputs"
_NO_PROCESSES = "a plugin cannot start threads or processes. hint: call the function directly"
_NO_LIBRARIES = "compiled libraries do not work in a plugin. hint: use modules that are written in Python only"
_NO_TERMINAL = "a plugin has no terminal. hint: use larder_plugin.log"

ABSENT = {
    "bz2": f"{_NO_LIBRARIES}, or zlib",
    "compression.zstd": f"{_NO_LIBRARIES}, or zlib",
    "concurrent.interpreters": _NO_PROCESSES,
    "ctypes": _NO_LIBRARIES,
    "curses": _NO_TERMINAL,
    "fcntl": _NO_FILES,
    "grp": _NO_FILES,
    "lzma": f"{_NO_LIBRARIES}, or zlib",
    "mmap": _NO_FILES,
    "pty": _NO_TERMINAL,
    "pwd": _NO_FILES,
    "readline": _NO_TERMINAL,
    "resource": "a plugin cannot set limits. hint: the limits are in the server's configuration",
    "ssl": _NO_NETWORK,
    "syslog": "a plugin has no system log. hint: use larder_plugin.log",
    "termios": _NO_TERMINAL,
    "tkinter": _NO_TERMINAL,
    "tty": _NO_TERMINAL,
}
"""The modules of the standard library that componentize-py's interpreter does not have, and the reasons."""

_USELESS = {
    "asyncio": _NO_PROCESSES,
    "concurrent": _NO_PROCESSES,
    "http": _NO_NETWORK,
    "multiprocessing": _NO_PROCESSES,
    "pdb": "a deployed plugin cannot be debugged. hint: do it in a unit test",
    "pydoc": "a deployed plugin has no documentation. hint: call help() in a unit test",
    "requests": _NO_NETWORK,
    "socket": _NO_NETWORK,
    "subprocess": _NO_PROCESSES,
    "urllib3": _NO_NETWORK,
}
"""The modules that can be imported, but do not work in a plugin, and the reasons."""

LAZY = {
    "collections": ("copy", "heapq"),
    "csv": ("re",),
    "datetime": ("_strptime",),
    "email.utils": ("email.charset",),
    "encodings": (
        "encodings.ascii",
        "encodings.cp1252",
        "encodings.iso8859_1",
        "encodings.utf_16",
        "encodings.utf_8_sig",
    ),
    "fractions": ("decimal",),
    "hmac": ("hashlib",),
    "string": ("re",),
    "time": ("_strptime",),
    "uuid": ("hashlib",),
    "xml.etree.ElementTree": ("xml.parsers.expat",),
}
"""The modules that functions of the standard library import when they are called. A deployed plugin cannot do this."""

_COMPILED = frozenset(
    "Crypto cffi catboost cryptography cv2 cvxpy duckdb gensim geopandas grpc h5py jax lightgbm lxml matplotlib nltk "
    "numba numexpr numpy onnxruntime orjson pandas pil PIL polars psutil psycopg2 pyarrow pydantic pydantic_core scipy "
    "shapely simplejson sklearn spacy statsmodels tensorflow tokenizers torch transformers ujson xgboost yaml".split()
)
"""Packages with compiled code, for the hint in an error."""

_LIBRARIES = (".so", ".pyd", ".dylib")
_SHOWN_MAX = 8


_COMPILED_CODE = (
    "it needs compiled code (C extensions), which does not work in a plugin. hint: use math, statistics and array of "
    "the standard library"
)


def never(name: str) -> str | None:
    """Returns why a module cannot work in a deployed plugin, or ``None`` if it may."""
    package = name.partition(".")[0]
    return (
        ABSENT.get(name)
        or ABSENT.get(package)
        or _USELESS.get(package)
        or (_COMPILED_CODE if package in _COMPILED else None)
    )


def explanation(name: str, project: str) -> str:
    """Explains why a module cannot be imported, and what to do. ``project`` is the directory of the project."""
    package = name.partition(".")[0]
    why = ABSENT.get(name) or ABSENT.get(package)
    if why is not None:
        return f"no module '{name}' in a plugin: {why}"
    path = os.path.join(project, package)
    if package in _COMPILED or _has_libraries(path):
        return f"no module '{name}' in a plugin: {_COMPILED_CODE}. {_found(project)}"
    if os.path.exists(path) or os.path.exists(f"{path}.py"):
        return f"no module '{name}' in the project"
    return (
        f"no module '{name}', neither in the standard library of a plugin nor in the project. hint: copy a package that "
        f"is written in Python only next to plugin.py: pip install --target . {package}. {_found(project)}"
    )


def _found(project: str) -> str:
    names = sorted(_importable(os.listdir(project), project))
    shown = ", ".join(names[:_SHOWN_MAX]) + (", ..." if len(names) > _SHOWN_MAX else "")
    return f"The project has the modules {shown}" if names else "The project has no other modules"


def _importable(entries: Iterable[str], project: str) -> Iterable[str]:
    own = {"larder_component", "larder_plugin", "plugin", "wit_world", "__pycache__"}
    for entry in entries:
        name, extension = os.path.splitext(entry)
        path = os.path.join(project, entry)
        is_package = not extension and os.path.isdir(path) and not _has_libraries(path)
        if (extension == ".py" or is_package) and name not in own and not name.startswith((".", "test")):
            yield name


def _has_libraries(directory: str) -> bool:
    return any(file.endswith(_LIBRARIES) for _, _, files in os.walk(directory) for file in files)


def stand_in() -> None:
    """Makes imports of absent modules fail in another interpreter, too."""
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
