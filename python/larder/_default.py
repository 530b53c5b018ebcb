"""The module functions, which use one store for the whole process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ._errors import RequestError
from ._store import FeatureStore

if TYPE_CHECKING:
    from ._training import RetrievalJob

_lock = threading.Lock()
_store: FeatureStore | None = None


def get_feature_store_client(store: FeatureStore | None = None) -> FeatureStore:
    """Returns the store that the module functions use.

    Without an argument, the first call creates the store: with the environment variables `LARDER_CONFIG`, `LARDER_FEAST_REPO`
    and `LARDER_URL`, or with `larder.yaml` in the current directory.

    Args:
        store: A store that the module functions use from now on.
    """
    global _store
    with _lock:
        if store is not None:
            _store = store
        elif _store is None:
            _store = FeatureStore()
        return _store


def get_training_features(
    entity_df: Any, features: list[str] | None = None, *, feature_service: str | None = None, **options: Any
) -> RetrievalJob:
    """Builds a training set. See `FeatureStore.get_historical_features`."""
    store = get_feature_store_client()
    return store.get_historical_features(entity_df, features, feature_service=feature_service, **options)


def get_features_for_prediction(*, feature_service: str | None = None, **inputs: Any) -> dict[str, Any]:
    """Looks up the features of one entity, or of several.

    Args:
        feature_service: The name of the service. By default, the service whose inputs are the names of `inputs`; if there are
            several, the one whose name ends with `_online`.
        **inputs: The join keys and request inputs: one value each, or a list of values each.

    Returns:
        The values by name: one value each for one entity, or a list of values each.

    Raises:
        RequestError: The server rejected the request, or no service has these inputs.
    """
    if not inputs:
        raise RequestError("no inputs are given. hint: use get_features_for_prediction(KEY=VALUE)")
    store = get_feature_store_client()
    service = feature_service if feature_service is not None else store.service_for(inputs)
    is_one = all(isinstance(value, (str, bytes)) or not hasattr(value, "__len__") for value in inputs.values())
    entities = {name: [value] for name, value in inputs.items()} if is_one else inputs
    found = store.get_online_features(feature_service=service, entities=entities).to_dict()
    return {name: values[0] for name, values in found.items()} if is_one else found
