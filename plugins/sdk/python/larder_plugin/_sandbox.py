"""Raises errors for functions that a component does not have.

A component has no clock, no files and no modules except those that were imported while it was built. Using them ends
the instance by a trap without a line of the plugin. An exception has one.
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
        _replace(time, name, "a plugin has no clock; context.as_of is the time of the request")


def close() -> None:
    """Replaces files when the component is in service: while it is built, a plugin may read its own files."""
    _replace(builtins, "open", "a plugin has no files in service; read them at the head of a module, while it is built")
    _replace(os, "urandom", "a plugin has no randomness: the same inputs have to give the same result")
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
            f"module '{name}' was not imported while the plugin was built; put 'import {name}' at the head of the file",
            name=name,
        )
