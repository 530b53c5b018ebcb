"""Replaces functions that do not work in a component by functions that raise errors.

A component has no clock, no files and no modules except those that were imported while it was built. Using them ends
the instance by a trap, which does not name a line of the plugin. The traceback of an exception does.
"""

from __future__ import annotations

import builtins
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn


def close_clocks() -> None:
    """Replaces clocks before the plugin is imported, so that it cannot keep a reference to one."""
    for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"):
        _replace(time, name, "a plugin has no clock; use context.as_of, the time of the request")


def close() -> None:
    """Replaces file access in a deployed component. While it is built, a plugin may read its own files."""
    no_files = "a deployed plugin has no files; read them at the top of a module, which runs when the plugin is built"
    _replace(builtins, "open", no_files)
    _replace(os, "urandom", "a plugin has no randomness: the same inputs must give the same result")
    sys.meta_path[:] = [_NoMore()]


def _replace(module: ModuleType, name: str, why: str) -> None:
    called = name if module is builtins else f"{module.__name__}.{name}"

    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(f"{called}(): {why}")

    setattr(module, name, refuse)


class _NoMore:
    """Rejects every import with the reason."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: Any = None) -> NoReturn:
        raise ModuleNotFoundError(
            f"module '{name}' was not imported while the plugin was built; put 'import {name}' at the top of the file",
            name=name,
        )
