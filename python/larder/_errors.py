"""The exceptions of the package.

All of them are subclasses of `LarderError`. Their messages are the messages of the command line and of the server.
"""

from __future__ import annotations

import builtins


class LarderError(Exception):
    """The base class of all exceptions of the package."""


class ConfigError(LarderError, ValueError):
    """An argument, a configuration file or a definition is invalid."""


class RequestError(LarderError):
    """The server rejected a request, or the arguments of a request are invalid.

    Attributes:
        status: The HTTP status of the server's response. It is None if no request was sent.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RequestError], tuple[str, int | None]]:
        return type(self), (str(self), self.status)


class ResponseError(LarderError):
    """A response is not valid, or it is larger than `max_response_bytes`."""


class ConnectionError(LarderError, builtins.ConnectionError):
    """The server does not accept connections, or a connection broke before the response was complete."""


class Timeout(LarderError, TimeoutError):
    """A call took longer than its timeout."""


class TrainingError(LarderError):
    """A training set cannot be built."""


class MissingPackageError(LarderError, ImportError):
    """A method needs a package that is not installed."""
