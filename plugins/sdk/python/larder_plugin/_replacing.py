"""Replaces functions of modules and methods of classes.

Other modules may have copied a function (``from time import time``), so all modules are searched for it. Methods of
classes that are written in C are replaced in the dictionaries of the classes.
"""

from __future__ import annotations

import builtins
import gc
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from ._trace import STDLIB


class Unavailable(RuntimeError):
    """A plugin called a function that cannot work in a component."""


def disabled(called: str, why: str, original: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Returns a function that raises an error.

    Modules of the standard library may call ``original`` while they are imported: `logging` reads the clock.
    """

    def raise_unavailable(*args: Any, **kwargs: Any) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while original is not None and frame is not None and frame.f_code.co_filename.startswith(STDLIB):
            if frame.f_code.co_name == "<module>":
                return original(*args, **kwargs)
            frame = frame.f_back
        raise Unavailable(f"{called}(): {why}")

    return raise_unavailable


class Replacements:
    """Attributes of modules, and the objects that replace them."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[object, object]] = {}
        self._found: list[tuple[dict[str, Any], str, object]] | None = None

    def disable(self, module: Any, name: str, why: str) -> None:
        """Replaces a function with one that raises an error, unless this interpreter does not have it."""
        if hasattr(module, name):
            # The public modules have copies of the functions of private ones, such as `_socket`.
            owner = "os.path" if module is os.path else module.__name__.removeprefix("_")
            called = name if module is builtins else f"{owner}.{name}"
            self.add(module, name, disabled(called, why, getattr(module, name)))

    def add(self, module: Any, name: str, replacement: object) -> None:
        """Replaces an attribute of a module."""
        original = getattr(module, name)
        # The original is kept, because another object could get the ID of a deleted one.
        self._by_id.setdefault(id(original), (original, replacement))

    def prepare(self) -> None:
        """Finds the attributes of all modules that are replaced."""
        self._found = [
            (namespace, name, self._by_id[id(value)][1])
            for module in list(sys.modules.values())
            # The import system uses functions of `posix` and `_io`, but has no copies of them.
            if module is not None and isinstance(namespace := getattr(module, "__dict__", None), dict)
            for name, value in namespace.items()
            if id(value) in self._by_id
        ]

    def apply(self) -> None:
        """Replaces the attributes."""
        if self._found is None:
            self.prepare()
        for namespace, name, replacement in self._found or ():
            namespace[name] = replacement


def replace_method(owner: type, name: str, method: Callable[..., Any]) -> None:
    """Replaces a method of a class, even if the class is written in C and cannot be changed otherwise.

    With a subclass in place of `datetime`, objects that are created by C code would not be instances of it.
    """
    if isinstance(owner.__dict__.get(name), (classmethod, staticmethod, type(dict.__dict__["fromkeys"]))):
        method = staticmethod(method)
    try:
        setattr(owner, name, method)
    except TypeError:
        [namespace] = (found for found in gc.get_referents(owner.__dict__) if isinstance(found, dict))
        namespace[name] = method
        clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
        clear()
