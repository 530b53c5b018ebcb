"""Writes to the host's log.

In unit tests, lines go to standard error. The host truncates long lines and drops lines beyond a rate limit, so do not
log for every row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def _to_stderr(level: str, message: str) -> None:
    print(f"{level}: {message}", file=sys.stderr)


sink: Callable[[str, str], None] = _to_stderr
"""The function that writes a line. Its arguments are the level and the text. In a component, it calls the host."""


def debug(message: object) -> None:
    """Logs a message for development."""
    sink("debug", str(message))


def info(message: object) -> None:
    """Logs information."""
    sink("info", str(message))


def warn(message: object) -> None:
    """Logs a warning."""
    sink("warn", str(message))


def error(message: object) -> None:
    """Logs an error."""
    sink("error", str(message))
