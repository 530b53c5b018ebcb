"""The settings of a store: its arguments, with the defaults from the environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ConfigError

if TYPE_CHECKING:
    from ._native import OfflineProject, OnlineClient

FilePath = str | os.PathLike[str]

MAX_RESPONSE_BYTES = 256 << 20
ASYNC_CALLS = 32


def open_project(config: str | None, feast_repo: str | None) -> OfflineProject:
    """Reads a configuration, or a Feast repository, and the definitions that it names."""
    from . import _native

    # Plugins are compiled in a process of their own, which has limits.
    script = Path(__file__).with_name("_compile.py").resolve()
    compiler_args = ["-I", str(script), os.path.abspath(str(_native.__file__))]
    return _native.OfflineProject(config, feast_repo, sys.executable, compiler_args)


@dataclass(frozen=True)
class Settings:
    """The settings of a store. They can be pickled, and are then valid in processes with another directory or environment.

    The token of the environment is not a setting, so that it is not in a pickle.
    """

    config: str | None
    feast_repo: str | None
    url: str | None
    token: str | None = field(repr=False)
    timeout: float
    ca: str | None
    identity: tuple[str, str] | None
    connect_retries: int
    max_response_bytes: int
    async_calls: int

    @classmethod
    def resolve(
        cls,
        config: FilePath | None,
        feast_repo: FilePath | None,
        url: str | None,
        token: str | None,
        timeout: float,
        ca: FilePath | None,
        client_certificate: FilePath | None,
        client_key: FilePath | None,
        connect_retries: int,
        max_response_bytes: int,
        async_calls: int,
    ) -> Settings:
        """Returns the settings for the arguments of `FeatureStore`.

        Raises:
            ConfigError: Only one of `client_certificate` and `client_key` is set, or `async_calls` is not positive.
        """
        if (client_certificate is None) != (client_key is None):
            raise ConfigError("client_certificate and client_key belong together. hint: set both, or neither")
        if async_calls < 1:
            raise ConfigError(f"async_calls: {async_calls} is not a positive number")
        identity = None
        if client_certificate is not None and client_key is not None:
            identity = (os.path.abspath(client_certificate), os.path.abspath(client_key))
        url = url or os.environ.get("LARDER_URL")
        if config is None and feast_repo is None:
            config = os.environ.get("LARDER_CONFIG")
            feast_repo = os.environ.get("LARDER_FEAST_REPO")
            if config is None and feast_repo is None and url is None:
                config = "larder.yaml"
        return cls(
            config=None if config is None else os.path.abspath(config),
            feast_repo=None if feast_repo is None else os.path.abspath(feast_repo),
            url=url,
            token=token,
            timeout=timeout,
            ca=None if ca is None else os.path.abspath(ca),
            identity=identity,
            connect_retries=connect_retries,
            max_response_bytes=max_response_bytes,
            async_calls=async_calls,
        )

    @property
    def has_definitions(self) -> bool:
        """Whether the settings name a configuration or a Feast repository."""
        return self.config is not None or self.feast_repo is not None

    def open_project(self) -> OfflineProject:
        """Reads the configuration and the definitions that it names."""
        return open_project(self.config, self.feast_repo)

    def connect(self, url: str) -> OnlineClient:
        """Returns a client of the server. Connections are opened by the calls."""
        from ._native import OnlineClient

        token = self.token or os.environ.get("LARDER_TOKEN")
        return OnlineClient(
            url, token, self.timeout, self.ca, self.identity, self.connect_retries, self.max_response_bytes
        )
