"""Formats tracebacks without file access, because a component has no files, and accessing one ends the instance.

To include source lines nevertheless, :func:`remember` reads the plugin's source while the plugin is built.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import TracebackType

_OWN = os.path.dirname(__file__)
# The interpreter of a component has some modules built in, with other paths.
STDLIB = (os.path.dirname(linecache.__file__), os.path.dirname(os.__file__), "<frozen ")
"""The beginnings of the paths of the standard library's modules."""
_FRAMES_MAX = 10
"""The maximum number of frames. They are enough to find the cause, while a recursion can have a thousand frames."""
_CAUSES_MAX = 4

_root = ""


def remember(directory: str) -> None:
    """Stores the source lines of all modules that were imported from a directory. Paths are shown relative to it."""
    global _root  # noqa: PLW0603 - there is one plugin per process
    _root = os.path.join(directory, "")
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and path.startswith(_root) and not path.startswith(_OWN):
            linecache.getlines(path)


def trace(error: BaseException) -> str:
    """Formats an error with its traceback as Python does, but without the frames of this package."""
    return "\n".join(_lines(error, _CAUSES_MAX))


def location(error: BaseException) -> str:
    """Returns the file, line and function of the last frame in the plugin's code: ``plugin.py:12, in derive``.

    Returns an empty text if there is none.
    """
    frames = _frames(error.__traceback__)
    own = [frame for frame in frames if not frame[0].startswith(STDLIB)] or frames
    return f"{own[-1][0]}:{own[-1][1]}, in {own[-1][2]}" if own else ""


def named(error: BaseException) -> str:
    """Returns the type and the text of an error: ``ValueError: text``."""
    try:
        text = str(error)
    except Exception as failure:
        text = f"(its str() raises {type(failure).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _lines(error: BaseException, causes: int) -> list[str]:
    lines = []
    if error.__cause__ is not None and causes:
        lines += _lines(error.__cause__, causes - 1)
        lines += ["", "The above exception was the direct cause of the following exception:", ""]
    elif error.__context__ is not None and not error.__suppress_context__ and causes:
        lines += _lines(error.__context__, causes - 1)
        lines += ["", "During handling of the above exception, another exception occurred:", ""]
    frames = _frames(error.__traceback__)
    if frames:
        lines.append("Traceback (most recent call last):")
    if len(frames) > _FRAMES_MAX:
        lines.append(f"  ... {len(frames) - _FRAMES_MAX} more frames ...")
    for name, line, function, source in frames[-_FRAMES_MAX:]:
        lines.append(f'  File "{name}", line {line}, in {function}')
        if source:
            lines.append(f"    {source}")
    lines.append(named(error))
    lines += [str(note) for note in getattr(error, "__notes__", ())]
    return lines


def _frames(traceback: TracebackType | None) -> list[tuple[str, int, str, str]]:
    """Returns the file, line, function and source line of each frame outside this package."""
    frames = []
    while traceback is not None:
        code, line = traceback.tb_frame.f_code, traceback.tb_lineno
        if not code.co_filename.startswith(_OWN):
            cached = linecache.cache.get(code.co_filename)
            source = ""
            if cached is not None and len(cached) == 4 and 0 < line <= len(cached[2]):
                source = cached[2][line - 1].strip()
            frames.append((code.co_filename.removeprefix(_root), line, code.co_name, source))
        traceback = traceback.tb_next
    return frames
