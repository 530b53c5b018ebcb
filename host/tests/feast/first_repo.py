"""Larder serves the repository that `feast init` creates over TLS, with Feast's unchanged SDK as the client. Covers what
new users try first, and the calls in Feast's tests of its remote online store.

Usage: first_repo.py LARDER DIR PLUGINS

DIR contains `ca.crt`, and the certificate and key for localhost, `tls.crt` and `tls.key`.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore, FeatureView
from feast.data_source import PushMode
from world import Checks, error_of, eventually, feast, larder_server, make_client

NOW = datetime.now(timezone.utc).replace(microsecond=0)
RATES = ["conv_rate", "acc_rate", "avg_daily_trips"]
TREES = ["driver_metadata", "driver_config", "driver_profile"]


def read(store: FeatureStore, features: Any, *drivers: int, **more: Any) -> dict[str, list]:
    rows = [{"driver_id": driver, **more} for driver in drivers]
    return dict(sorted(store.get_online_features(features=features, entity_rows=rows).to_dict().items()))


def of(view: str, names: list[str]) -> list[str]:
    return [f"{view}:{name}" for name in names]


def frame(drivers: list[int], rates: list[float]) -> pd.DataFrame:
    count = len(drivers)
    return pd.DataFrame(
        {
            "driver_id": drivers,
            "conv_rate": rates,
            "acc_rate": rates,
            "avg_daily_trips": range(50, 50 + count),
            "event_timestamp": [NOW] * count,
            "created": [NOW] * count,
            "driver_metadata": [{"vehicle_type": "sedan", "rating": "4.5"}] * count,
            "driver_config": ['{"max_distance_km": 100, "preferred_zones": ["north"]}'] * count,
            "driver_profile": [{"name": f"driver_{driver}", "age": "30"} for driver in drivers],
        }
    )


def reads(checks: Checks, client: FeatureStore, direct: FeatureStore) -> None:
    """Checks that the client reads the same values from Larder as Feast reads directly from the store."""
    for what, names, drivers in [
        ("several drivers", RATES, (1001, 1002, 1005)),
        ("nobody", RATES, (1234,)),
        ("one feature", RATES[:1], (1001, 1234)),
        ("maps, JSON and structs", TREES, (1001, 1003)),
    ]:
        features = of("driver_hourly_stats", names)
        found = read(client, features, *drivers)
        if "driver_config" in found:
            # Over HTTP, Feast's client returns JSON values as text, with any server.
            found["driver_config"] = [json.loads(text) for text in found["driver_config"]]
        checks.equal(what, found, read(direct, features, *drivers))
        checks.true(f"{what}: found", (found[names[0]][0] is None) == (drivers[0] == 1234), found)


def errors(checks: Checks, client: FeatureStore, direct: FeatureStore) -> None:
    def unknown(store: FeatureStore) -> Any:
        return read(store, ["driver_hourly_stats1:conv_rate", "driver_hourly_stats:acc_rate"], 1001)

    for name, store in [("Larder", client), ("Feast", direct)]:
        _, message = error_of(lambda: unknown(store))
        checks.true(f"{name}: an unknown view", "Feature view driver_hourly_stats1 does not exist" in message, message)
    # Larder does not run the Python code of this view, and there is no plugin. The client must get the error message
    # immediately, without retries.
    began = datetime.now()
    kind, message = error_of(
        lambda: read(client, ["transformed_conv_rate:conv_rate_plus_val1"], 1001, val_to_add=1, val_to_add_2=2)
    )
    checks.equal("no plugin: the class of the error", kind, "FeastError")
    checks.true("no plugin: the message", "transformed_conv_rate.wasm" in message, message)
    checks.true("no plugin: the error is immediate", datetime.now() - began < timedelta(seconds=2), datetime.now() - began)


def writes(checks: Checks, client: FeatureStore) -> None:
    fresh = of("driver_hourly_stats_fresh", RATES + TREES)
    client.push("driver_stats_push_source", frame([1000, 1001], [0.5, 0.75]), to=PushMode.ONLINE)
    pushed = read(client, fresh, 1000, 1001)
    checks.equal("pushed", [pushed[name] for name in RATES], [[0.5, 0.75], [0.5, 0.75], [50, 51]])
    checks.equal("pushed: a map", pushed["driver_metadata"][1], {"vehicle_type": "sedan", "rating": "4.5"})
    checks.equal("pushed: JSON", pushed["driver_config"][0], '{"max_distance_km": 100, "preferred_zones": ["north"]}')
    checks.equal("pushed: a struct", pushed["driver_profile"], [{"name": f"driver_{n}", "age": "30"} for n in (1000, 1001)])

    client.write_to_online_store("driver_hourly_stats", frame([2000], [0.25]))
    checks.equal("written", read(client, of("driver_hourly_stats", RATES[:1]), 2000)["conv_rate"], [0.25])

    labels = of("driver_quality_labels", ["is_reliable", "quality_score", "labeler"])
    row = {"is_reliable": 1, "quality_score": 0.5, "reviewer_notes": "fine", "labeler": "ann"}
    table = pd.DataFrame([{"driver_id": 1001, "event_timestamp": NOW, **row}])
    client.push("driver_quality_labels_push", table, to=PushMode.ONLINE)
    found = read(client, labels, 1001, 1002)
    checks.equal("labels", (found["is_reliable"], found["labeler"]), ([1, None], ["ann", None]))

    # Feast's client sends materialization to the server. The newest rows in the view's files are an hour old.
    span = NOW - timedelta(days=30), NOW + timedelta(minutes=5)
    client.materialize(*span, feature_views=["driver_hourly_stats"])
    client.materialize_incremental(span[1], feature_views=["driver_hourly_stats"])
    rates = read(client, of("driver_hourly_stats", RATES[:1]), 1001, 2000)["conv_rate"]
    checks.true("materialized", rates[0] is not None and rates[1] == 0.25, rates)


def redefined(checks: Checks, client: FeatureStore, direct: FeatureStore) -> None:
    """Applies another definition of a view while Larder serves, and checks that Larder uses it."""
    view = direct.get_feature_view("driver_hourly_stats")
    schema = [field for field in view.schema if field.name in RATES]
    direct.apply(
        FeatureView(
            name=view.name, entities=[direct.get_entity("driver")], ttl=view.ttl, schema=schema, source=view.batch_source
        )
    )
    client.refresh_registry()
    gone = of("driver_hourly_stats", TREES[:1])
    eventually("the feature is removed", lambda: "not found in projection" in error_of_server(client, gone))
    rates = read(client, of("driver_hourly_stats", RATES), 1001)
    checks.true("a feature that both definitions have", rates["conv_rate"][0] is not None, rates)


def error_of_server(store: FeatureStore, features: list[str]) -> str:
    """Returns the message of the server's error. Bypasses the client's own check of the names in the registry."""
    return error_of(
        lambda: store._get_provider().get_online_features(
            config=store.config,
            features=features,
            entity_rows={"driver_id": [1001]},
            registry=store.registry,
            project=store.project,
            full_feature_names=False,
        )
    )[1]


def main() -> None:
    larder, base = sys.argv[1], Path(sys.argv[2])
    checks = Checks()
    feast(base, "init", "first")
    repo = base / "first/feature_repo"
    feast(repo, "apply")
    feast(repo, "materialize-incremental", (NOW + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S"))
    tls = f"server: {{tls: {{cert: '{base / 'tls.crt'}', key: '{base / 'tls.key'}'}}}}\n"
    (repo / "larder.yaml").write_text(tls)
    os.environ["SSL_CERT_FILE"] = str(base / "ca.crt")
    server = larder_server(larder, repo, None, scheme="https")
    try:
        server.until_healthy("/ready")
        make_client(repo, base / "client", server.url, project="first", cert=base / "ca.crt")
        client, direct = FeatureStore(str(base / "client")), FeatureStore(str(repo))
        reads(checks, client, direct)
        errors(checks, client, direct)
        writes(checks, client)
        redefined(checks, client, direct)
    finally:
        server.kill()
    checks.end()


if __name__ == "__main__":
    main()
