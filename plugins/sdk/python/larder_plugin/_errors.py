"""The errors of a call, and suggestions for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Fault(Exception):
    """An error that fails the whole call. The host then responds as the derived view's ``on_error`` specifies.

    For a single row with invalid values, return ``None`` instead of raising a fault. ``kind`` is the contract's name of
    the error.
    """

    kind = "internal"


class BadConfig(Fault):
    """The plugin rejects the derived view's configuration."""

    kind = "bad-config"


class BadInput(Fault):
    """The plugin cannot process these inputs. A plugin's function may raise it."""

    kind = "bad-input"


class Internal(Fault):
    """Any other error, such as an exception in the function, or a result that does not match the outputs."""

    kind = "internal"


def nearest(written: str, known: Iterable[str]) -> str:
    """Returns `` (did you mean 'x'?)`` if a known name is similar to the given one, and otherwise an empty text."""
    close = difflib.get_close_matches(written, list(known), n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: object) -> str:
    """Formats a value for a message as its type and its truncated text: ``str 'abc'``."""
    if value is None:
        return "None"
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{type(value).__name__} {text}"
