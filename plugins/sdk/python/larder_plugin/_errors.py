"""What a call can answer instead of values, and how a name that was mistyped is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Fault(Exception):
    """The whole call failed; the host answers as the derived view's ``on_error`` says.

    A row that makes no sense should rather be ``None``. ``kind`` is the contract's word.
    """

    kind = "internal"


class BadConfig(Fault):
    """The derived view's configuration makes no sense to the plugin."""

    kind = "bad-config"


class BadInput(Fault):
    """The plugin cannot work on these inputs. A plugin's function may raise it."""

    kind = "bad-input"


class Internal(Fault):
    """Anything else: an exception in the function, or a result that does not fit."""

    kind = "internal"


def nearest(written: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where a known name is close to the written one, else nothing."""
    close = difflib.get_close_matches(written, list(known), n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: object) -> str:
    """A value in a message, with its type, and short: ``str 'abc'``."""
    if value is None:
        return "None"
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{type(value).__name__} {text}"
