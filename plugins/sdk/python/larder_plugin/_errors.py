"""The error that a plugin's function may raise, and the words of messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Fault(Exception):
    """An error whose message is passed on unchanged.

    A function of a row that raises it, or any other exception, fails only this row. The outputs of a failed row are
    null, and the host responds as the derived view's ``on_error`` specifies. With ``by="columns"``, an exception fails
    the batch; the host then calls the function with parts of the batch. For any other exception, the message also has
    the exception's type and the line, and the host logs the traceback.

    While the plugin is configured, the error rejects the derived view's ``config``.
    """


class DeclarationError(TypeError):
    """A plugin is declared incorrectly. The message lists all mistakes."""


def nearest(written: str, known: Iterable[str]) -> str:
    """Returns `` (did you mean 'x'?)`` if a known name is similar to the given one, and otherwise an empty text."""
    close = difflib.get_close_matches(written, list(known), n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: object) -> str:
    """Formats a value for a message as its type and its truncated text: ``str 'abc'``."""
    if value is None:
        return "None"
    try:
        text = repr(value)
    except Exception as error:
        text = f"(its repr() raises {type(error).__name__})"
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{type(value).__name__} {text}"
