"""The request of a training set, with which the package calls the native module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._errors import RequestError


def selection(features: Any, feature_service: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Returns the name of the requested service, or the references of the requested features.

    Raises:
        RequestError: Both arguments are given, none is given, or `features` is text.
    """
    if feature_service is not None:
        if features is not None:
            raise RequestError("features and feature_service are both given. hint: use only one of them")
        return feature_service, ()
    if isinstance(features, str):
        raise RequestError(f"features: '{features}' is not a list. hint: use ['VIEW:FEATURE', ...] or feature_service=")
    # A feature service of this package or of Feast.
    name = getattr(features, "name", None)
    if isinstance(name, str):
        return name, ()
    if features is None:
        raise RequestError("no features are given. hint: set 'features' or 'feature_service'")
    return None, tuple(features)


@dataclass(frozen=True)
class SetRequest:
    """A request for a training set or for the derived features of a frame, without its rows.

    The other attributes are arguments of `FeatureStore.get_historical_features`. The native module reads all of them.

    Attributes:
        selected: The name of a service, or the references of features: see `selection`.
        is_derived: Whether only derived features of a frame are computed.
    """

    selected: tuple[str | None, tuple[str, ...]]
    full_feature_names: bool
    timestamp_column: str
    strict: bool
    known_at: str = "event"
    ttl: str = "null"
    event_timestamps: bool = False
    memory: int | str | None = None
    threads: int | None = None
    is_derived: bool = False

    @property
    def service(self) -> str | None:
        """The name of the requested service."""
        return self.selected[0]

    @property
    def features(self) -> tuple[str, ...]:
        """The references of the requested features."""
        return self.selected[1]

    @classmethod
    def derived(
        cls,
        selected: tuple[str | None, tuple[str, ...]],
        full_feature_names: bool,
        timestamp_column: str,
        strict: bool,
        threads: int | None = None,
    ) -> SetRequest:
        """Returns a request for the derived features of a frame, whose stored features may have any age."""
        return cls(
            selected, full_feature_names, timestamp_column, strict, ttl="ignore", threads=threads, is_derived=True
        )

    def __str__(self) -> str:
        if self.service is not None:
            return f"service '{self.service}'"
        return "1 feature" if len(self.features) == 1 else f"{len(self.features)} features"
