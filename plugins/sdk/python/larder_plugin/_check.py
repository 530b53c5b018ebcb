"""Imports a project's plugin in an ordinary interpreter, to report mistakes before the slow build.

``larder plugin build`` runs this file in a copy of the project, as ``python -I -S -B larder_plugin/_check.py``.
Packages of the user's environment are not in the path, because they are not in the component either.

The component contains another version of the interpreter. If the versions differ, some errors are not certain. A
mistake is printed in any case, and the exit status shows whether it is certain.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

COMPONENT_VERSION = (3, 14)
"""The version of the interpreter in a component."""
MISTAKE = 3
"""The exit status if the build cannot succeed."""
DOUBTFUL = 4
"""The exit status if only the build can tell whether the error occurs in the component, too."""


def main() -> int:
    """Imports the plugin, prints the mistake if there is one, and returns the exit status."""
    project = os.getcwd()
    sys.path.append(project)
    sys.path_hooks.insert(0, lambda path: _finder(path, project))
    os.environ.clear()

    from larder_plugin._modules import stand_in
    from larder_plugin._project import load
    from larder_plugin._sandbox import Sandbox

    Sandbox()
    stand_in()
    try:
        load("plugin")
    except BaseException as error:
        print(report(error, project), file=sys.stderr)
        return MISTAKE if _is_certain(error) else DOUBTFUL
    return 0


def _finder(path: str, project: str) -> FileFinder:
    """Returns a finder that finds only modules in Python, because the component has no compiled ones of the project."""
    if os.path.commonpath([os.path.abspath(path), project]) != project:
        raise ImportError(f"{path} is not in the project", path=path)
    return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))


def report(error: BaseException, project: str) -> str:
    """Formats an error with the frames in the project, without those of the kit and the standard library."""
    import linecache
    import traceback

    root = os.path.join(project, "")
    kit = os.path.join(root, "larder_plugin", "")
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(root) and not frame.filename.startswith(kit):
            lines.append(f'  File "{frame.filename.removeprefix(root)}", line {frame.lineno}, in {frame.name}')
            source = linecache.getline(frame.filename, frame.lineno or 0).strip()
            lines += [f"    {source}"] if source else []
    if lines:
        lines.insert(0, "Traceback (most recent call last):")
    text = "".join(traceback.format_exception_only(error)).rstrip()
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    if name.startswith("larder_plugin."):
        text = text.replace(name, type(error).__qualname__, 1)
    return "\n".join([*lines, text.replace(f'File "{root}', 'File "')])


def _is_certain(error: BaseException) -> bool:
    from larder_plugin import DeclarationError
    from larder_plugin._modules import ABSENT
    from larder_plugin._project import is_explained
    from larder_plugin._replacing import Unavailable

    if sys.version_info[:2] == COMPONENT_VERSION or isinstance(error, (DeclarationError, Unavailable)):
        return True
    if is_explained(error):
        return True
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return False
    # Other versions have other modules in their standard libraries.
    standard = {*sys.stdlib_module_names, "annotationlib", "compression"}
    return error.name in ABSENT or error.name.partition(".")[0] not in standard


if __name__ == "__main__":
    sys.exit(main())
