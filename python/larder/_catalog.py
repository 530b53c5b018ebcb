"""The definitions of a project: feature views, feature services, and the types of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ._errors import RequestError


@dataclass(frozen=True)
class Feature:
    """A feature of a view.

    Attributes:
        name: The name of the feature.
        type: The type, such as `Int64` or `Array(Float32)`.
        doc: The description by the plugin that computes the feature; empty for a stored feature.
    """

    name: str
    type: str
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    doc: str = ""


@dataclass(frozen=True)
class FeatureView:
    """A feature view, or a derived view.

    Attributes:
        name: The name of the view.
        join_keys: The names of the key columns; empty for a derived view.
        features: The features.
        ttl: How long a value is valid, or None if it is always valid.
        plugin: The plugin that computes the features of a derived view, or None for other views.
    """

    name: str
    join_keys: list[str]
    features: list[Feature]
    ttl: timedelta | None = None
    plugin: str | None = None
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureService:
    """A feature service.

    Attributes:
        name: The name of the service.
        features: The references of its features, as `VIEW:FEATURE`.
        inputs: The types of the columns that a lookup needs: the join keys and the request inputs.
    """

    name: str
    features: list[str]
    inputs: dict[str, str]
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Catalog:
    """The definitions of a project, from the dictionary of `GET /v1/catalog`."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        plain = [_view(view) for view in definitions.get("feature_views", [])]
        derived = [_view(view) for view in definitions.get("derived_views", [])]
        self.views = plain + derived
        self.services = [_service(service) for service in definitions.get("feature_services", [])]
        self._types = {(view.name, feature.name): feature.type for view in self.views for feature in view.features}
        self._keys = {entity["join_key"]: entity["type"] for entity in definitions.get("entities", [])}

    def service(self, name: str) -> FeatureService:
        """Returns a service.

        Raises:
            RequestError: There is no such service.
        """
        for service in self.services:
            if service.name == name:
                return service
        known = ", ".join(f"'{service.name}'" for service in self.services) or "none"
        raise RequestError(f"feature service '{name}' does not exist. hint: the services are {known}")

    def column_types(self, service: str | None, features: Sequence[str], full_feature_names: bool) -> dict[str, str] | None:
        """Returns the types of the columns of a response, or None if a requested name is not in the catalog."""
        types = dict(self._keys)
        if service is not None:
            found = next((known for known in self.services if known.name == service), None)
            if found is None:
                return None
            types.update(found.inputs)
            features = found.features
        for reference in features:
            view, _, feature = reference.partition(":")
            type_name = self._type(view, feature)
            if type_name is None:
                return None
            types[f"{view}__{feature}" if full_feature_names else feature] = type_name
        return types

    def _type(self, view: str, feature: str) -> str | None:
        found = self._types.get((view, feature))
        if found is None:
            # A service may refer to a view by another name: the name of the projection. Then the feature's name decides,
            # unless views have features of this name with different types.
            types = {type_name for (_, name), type_name in self._types.items() if name == feature}
            found = types.pop() if len(types) == 1 else None
        return found


def _feature(feature: dict[str, Any]) -> Feature:
    # A newer server may send more than this version knows.
    return Feature(
        name=feature["name"],
        type=feature["type"],
        description=feature.get("description") or "",
        tags=feature.get("tags") or {},
        doc=feature.get("doc") or "",
    )


def _view(view: dict[str, Any]) -> FeatureView:
    ttl = view.get("ttl_seconds")
    return FeatureView(
        name=view["name"],
        join_keys=view.get("join_keys", []),
        features=[_feature(feature) for feature in view["features"]],
        ttl=None if ttl is None else timedelta(seconds=ttl),
        plugin=view.get("plugin"),
        description=view.get("description") or "",
        tags=view.get("tags") or {},
    )


def _service(service: dict[str, Any]) -> FeatureService:
    return FeatureService(
        name=service["name"],
        features=service["features"],
        inputs={column["name"]: column["type"] for column in service.get("inputs", [])},
        description=service.get("description") or "",
        tags=service.get("tags") or {},
    )
