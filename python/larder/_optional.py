"""Imports packages that only some methods need."""

from __future__ import annotations

import importlib
from typing import Any

from ._errors import MissingPackageError


def require(package: str, method: str) -> Any:
    """Imports a package.

    Args:
        package: The name of the package.
        method: The method that needs it, for the message.

    Raises:
        MissingPackageError: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        message = f"{method}() needs the package '{package}', which is not installed. hint: pip install {package}"
        raise MissingPackageError(message, name=package) from None
