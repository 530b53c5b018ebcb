"""Larder's Python package: point-in-time training sets, and lookups of features from a running server.

    import larder

    fs = larder.FeatureStore("larder.yaml")
    row = fs.get_online_features(
        feature_service="churn_prediction_online",
        entities={"customer_id": ["CUST_000123"]},
    ).to_dict()

The package needs no other package. Methods such as `to_df` import the package of their result when they are called.
"""

from __future__ import annotations

from ._catalog import Feature, FeatureService, FeatureView
from ._default import get_feature_store_client, get_features_for_prediction, get_training_features
from ._errors import (
    ConfigError,
    ConnectionError,
    LarderError,
    MissingPackageError,
    RequestError,
    ResponseError,
    Timeout,
    TrainingError,
)
from ._response import OnlineResponse
from ._store import FeatureProblem, FeatureStore
from ._training import BackfillFile, RetrievalJob

__all__ = [
    "BackfillFile",
    "ConfigError",
    "ConnectionError",
    "Feature",
    "FeatureProblem",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "LarderError",
    "MissingPackageError",
    "OnlineResponse",
    "RequestError",
    "ResponseError",
    "Timeout",
    "TrainingError",
    "get_feature_store_client",
    "get_features_for_prediction",
    "get_training_features",
]


def __getattr__(name: str) -> str:
    # The native module is loaded when it is needed.
    if name == "__version__":
        from . import _native

        return _native.__version__
    raise AttributeError(f"module 'larder' has no attribute '{name}'")
