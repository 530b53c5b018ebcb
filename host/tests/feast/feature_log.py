"""Feast reads Larder's feature log: the log has the columns of Feast's own log, Feast writes it to an offline store, and reads
the same values back.

Usage: feature_log.py LARDER DIR PLUGINS
"""

from __future__ import annotations

import shutil
import signal
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore
from feast.feature_logging import FeatureServiceLoggingSource
from world import Checks, feast, larder_server, make_repo

DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
shopper = Entity(name="shopper", join_keys=["shopper_id"], value_type=ValueType.STRING)
driver_stats = FeatureView(
    name="driver_stats",
    entities=[shopper, driver],
    ttl=timedelta(days=3650),
    source=FileSource(name="drivers", path="data/drivers.parquet", timestamp_field="event_timestamp"),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="shopper_id", dtype=String),
        Field(name="conv_rate", dtype=Float64),
        Field(name="level", dtype=Int32),
        Field(name="basket", dtype=Float32),
        Field(name="trips", dtype=Int64),
        Field(name="is_member", dtype=Bool),
        Field(name="city", dtype=String),
        Field(name="avatar", dtype=Bytes),
        Field(name="last_seen", dtype=UnixTimestamp),
        Field(name="tags", dtype=Array(String)),
        Field(name="recent", dtype=Array(Int64)),
        Field(name="scores", dtype=Array(Float64)),
        Field(name="visits", dtype=Array(UnixTimestamp)),
    ],
)
driver_rates = FeatureView(
    name="driver_rates",
    entities=[driver],
    ttl=timedelta(days=3650),
    source=FileSource(name="rates", path="data/drivers.parquet", timestamp_field="event_timestamp"),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="conv_rate", dtype=Float64)],
)
asked = RequestSource(name="asked", schema=[Field(name="amount", dtype=Float64), Field(name="hour", dtype=Int64)])


@on_demand_feature_view(
    sources=[driver_rates, asked],
    mode="python",
    schema=[Field(name="conv_x_amount", dtype=Float64), Field(name="label", dtype=String)],
)
def odfv_python(inputs: dict) -> dict:
    pairs = zip(inputs["conv_rate"], inputs["amount"])
    return {
        "conv_x_amount": [None if rate is None else rate * amount for rate, amount in pairs],
        "label": ["h" + str(hour) for hour in inputs["hour"]],
    }


logged = FeatureService(
    name="logged",
    features=[
        driver_stats,
        driver_rates.with_name("start").with_join_key_map({"driver_id": "start_driver_id"}),
        odfv_python,
    ],
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="logged")),
)
"""


def normal(data_type: pa.DataType) -> pa.DataType:
    """Replaces the units and zones of times, because Parquet has no seconds. Feast's types differ in them, too."""
    if pa.types.is_timestamp(data_type):
        return pa.timestamp("us")
    return pa.list_(normal(data_type.value_type)) if pa.types.is_list(data_type) else data_type


def main() -> None:
    larder, repo, plugins = sys.argv[1], Path(sys.argv[2]) / "repo", sys.argv[3]
    checks = Checks()
    make_repo(repo, DEFINITIONS)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    hour_ago = now - timedelta(hours=1)
    table = pd.DataFrame(
        {
            "driver_id": [1, 2],
            "shopper_id": ["a", "b"],
            "event_timestamp": hour_ago,
            "conv_rate": [0.1, -0.0],
            "level": pd.array([7, None], dtype="Int32"),
            "basket": pd.Series([0.5, None], dtype="float32"),
            "trips": pd.array([2**60 + 1, None], dtype="Int64"),
            "is_member": [True, None],
            "city": ["é", None],
            "avatar": [b"\x00\xff", None],
            "last_seen": [hour_ago, None],
            "tags": [["x", ""], None],
            "recent": [[2**60 + 1], None],
            "scores": [[0.1, -0.0], None],
            "visits": [[hour_ago], None],
        }
    )
    table.to_parquet(repo / "data/drivers.parquet")
    feast(repo, "apply")
    feast(repo, "materialize", "2020-01-01T00:00:00", (now + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S"))
    (repo / "larder.yaml").write_text("logging: {services: {logged: 1}, to: log}\n")
    server = larder_server(larder, repo, plugins, "--config", "larder.yaml")
    try:
        server.until_healthy("/ready")
        entities = {"driver_id": [1, 2, 3], "shopper_id": ["a", "b", "c"], "start_driver_id": [2, 1, 3]}
        body = {
            "feature_service": "logged",
            "entities": {**entities, "amount": [2.0, 3.0, 4.0], "hour": [1, 2, 3]},
            "full_feature_names": True,
        }
        status, response = server.columns(body)
        checks.equal("status", status, 200)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    finally:
        server.kill()

    store = FeatureStore(repo_path=str(repo))
    service = store.get_feature_service("logged")
    source = FeatureServiceLoggingSource(service, store.project)
    schema = source.get_schema(store.registry)
    log = pq.read_table(repo / "log/logged")
    checks.equal("the first columns", log.column_names[: len(schema.names)], schema.names)
    own = log.column_names[len(schema.names) :]
    checks.true("Larder's columns", all(name.startswith("__larder_") for name in own), own)
    for field in schema:
        checks.equal(f"type of {field.name}", normal(log.schema.field(field.name).type), normal(field.type))
    # The conversion fails if a value would change.
    exact = {f"{name}__timestamp" for name in response} & set(schema.names)
    checks.true("event times", len(exact) == 12 + 1 + 2, exact)
    columns = [log.column(field.name) for field in schema]
    safe = pa.table([c.cast(f.type, safe=f.name != "__log_timestamp") for c, f in zip(columns, schema)], schema=schema)

    store.write_logged_features(Path(repo / "log/logged"), service)
    back = store._get_provider().retrieve_feature_service_logs(
        feature_service=service,
        start_date=now - timedelta(hours=1),
        end_date=now + timedelta(hours=1),
        config=store.config,
        registry=store.registry,
    )
    frame = back.to_arrow()
    checks.equal("rows that Feast reads", frame.num_rows, 3)
    # Feast's file store reads integers with nulls as floats, so they are not compared.
    for name in ["driver_stats__city", "driver_stats__conv_rate", "odfv_python__label", "start__conv_rate"]:
        logged = dict(zip(log.column("driver_id").to_pylist(), safe.column(name).to_pylist()))
        read = dict(zip(frame.column("driver_id").to_pylist(), frame.column(name).to_pylist()))
        checks.equal(name, {key: str(value) for key, value in logged.items()}, {key: str(value) for key, value in read.items()})
        returned = dict(zip(entities["driver_id"], response[name]["values"]))
        checks.equal(f"{name} in the response", logged, returned)
    shutil.rmtree(repo / "logged")
    store.write_logged_features(safe, service)
    checks.true("Feast writes a table", any((repo / "logged").iterdir()))
    checks.end()


if __name__ == "__main__":
    main()
