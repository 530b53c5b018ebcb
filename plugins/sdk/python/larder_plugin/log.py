"""The host's log.

Where the plugin runs in a unit test, the lines go to standard error. The host cuts long lines and drops lines beyond
a rate, so do not log per row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def _to_stderr(level: str, message: str) -> None:
    print(f"{level}: {message}", file=sys.stderr)


sink: Callable[[str, str], None] = _to_stderr
"""Where lines go: called with the level and the text. In service the host's log takes this place."""


def debug(message: object) -> None:
    """For yourself, while you write the plugin."""
    sink("debug", str(message))


def info(message: object) -> None:
    """Worth knowing."""
    sink("info", str(message))


def warn(message: object) -> None:
    """Worth a look."""
    sink("warn", str(message))


def error(message: object) -> None:
    """Something went wrong."""
    sink("error", str(message))
