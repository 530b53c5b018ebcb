"""Replaces functions that do not work in a component with functions that raise errors.

A component has no clock and no files, and can only import modules that were imported while it was built. Anything else
ends the instance with a trap, which does not show the line in the plugin. An exception has a traceback, which does.
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
    """Replaces clocks. Called before the plugin is imported, so that the plugin cannot keep a reference to a clock."""
    for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"):
        _replace(time, name, "a plugin has no clock; use context.as_of, the time of the request")


def close() -> None:
    """Replaces file access, randomness and imports. Called only when deployed: a build may read files and import."""
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
    """A finder that rejects every import, with the reason in the error."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: Any = None) -> NoReturn:
        raise ModuleNotFoundError(
            f"module '{name}' was not imported while the plugin was built; put 'import {name}' at the top of the file",
            name=name,
        )
