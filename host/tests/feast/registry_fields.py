"""Registries that Feast wrote: fields that change the served values, definitions that are applied while Larder serves,
and names with all sorts of characters. Feast's own values are the expected ones.

Usage: registry_fields.py LARDER DIR PLUGINS
       registry_fields.py > ../../model/src/registry/feast/testdata/fields.txt, after an upgrade of Feast
"""

from __future__ import annotations

import os
import sys
import urllib.request
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    StreamFeatureView,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.data_format import DeltaFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.types import Float64, Int64
from feast.version import get_version
from world import Checks, Server, eventually, larder_server, make_client, make_repo

FIELDS = Path(__file__).parents[2] / "model/src/registry/feast/testdata/fields.txt"
AT = datetime(2026, 11, 1)
FOREVER = timedelta(0)
USER = Entity(name="user", join_keys=["k"], value_type=ValueType.INT64)
K = Field(name="k", dtype=Int64)
F = Field(name="f", dtype=Float64)
CENTS = "def cents(df):\n    df = df.copy()\n    df['f'] = df['f'] * 100\n    return df\n"
ODD = ["Größe in cm", "a,b", "x[0].y", "it's \"quoted\"", "100 %", "日本", "-1", "a__b", "a=b", "n" * 2_000]


def registry_fields() -> str:
    """Returns the fields of all messages that occur in a registry, as the text of fields.txt."""
    kinds = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}
    kinds |= {13: "uint32", 14: "enum"}
    messages: dict[str, Any] = {}

    def walk(message: Any) -> None:
        if message.full_name not in messages:
            messages[message.full_name] = message
            for field in message.fields:
                if field.message_type:
                    walk(field.message_type)

    walk(Registry.DESCRIPTOR)
    lines = [f"# The fields of a registry's messages in Feast {get_version()}: message, number, name, type."]
    for name, message in sorted(messages.items()):
        for field in sorted(message.fields, key=lambda field: field.number):
            kind = field.message_type.full_name if field.message_type else kinds[field.type]
            lines.append(f"{name} {field.number} {field.name} {'repeated ' if field.is_repeated else ''}{kind}")
    return "\n".join(lines) + "\n"


def cents(df):  # type: ignore[no-untyped-def]  # Feast reads the annotations
    df = df.copy()
    df["f"] = df["f"] * 100
    return df


def source(repo: Path, name: str, **columns: list) -> FileSource:
    rows = len(next(iter(columns.values())))
    times = pa.array([AT] * rows, pa.timestamp("us"))
    table = pa.table({"k": pa.array(range(1, rows + 1)), "event_timestamp": times, **columns})
    pq.write_table(table, repo / f"data/{name}.parquet")
    return FileSource(name=f"source_{name}", path=f"data/{name}.parquet", timestamp_field="event_timestamp")


def view(repo: Path, name: str, schema: list[Field] | None = None, **columns: list) -> FeatureView:
    of = source(repo, f"table_{len(list(repo.glob('data/*.parquet')))}", **(columns or {"f": [1.0, 2.0]}))
    return FeatureView(name=name, entities=[USER], ttl=FOREVER, schema=[K, *(schema or [F])], source=of)


def repository(repo: Path, registry: bytes | None = None) -> FeatureStore:
    make_repo(repo, "")
    (repo / "definitions.py").unlink()
    if registry is not None:
        (repo / "data/registry.db").write_bytes(registry)
    os.chdir(repo)
    return FeatureStore(".")


def values(server: Server, features: list[str], keys: tuple[int, ...] = (1, 2)) -> Any:
    status, answer = server.columns({"features": features, "entities": {"k": list(keys)}})
    if status != 200:
        return status, answer
    return {name: column["values"] for name, column in answer.items() if name != "k"}


def feasts(store: FeatureStore, features: Any, keys: tuple[int, ...] = (1, 2)) -> dict[str, list]:
    return store.get_online_features(features=features, entity_rows=[{"k": key} for key in keys]).to_dict()


def refused(checks: Checks, server: Server, name: str, why: str) -> None:
    status, answer = server.columns({"features": [f"{name}:f"], "entities": {"k": [1]}})
    checks.true(f"{name} is not served", status == 501 and why in str(answer), (status, answer))


def fields_that_change_answers(checks: Checks, larder: str, repo: Path) -> None:
    store = repository(repo)
    plain = view(repo, "plain_view")
    more: dict[str, Any] = {"mode": "pandas", "entities": [USER], "ttl": FOREVER, "schema": [K, F], "online": True}
    transformed = {**more, "udf": cents, "udf_string": CENTS}
    batch = BatchFeatureView(name="batch_view", source=source(repo, "b", f=[1.0, 2.0]), **transformed)
    push = PushSource(name="ps", batch_source=source(repo, "s", f=[1.0, 2.0]))
    stream = StreamFeatureView(name="stream_view", source=push, timestamp_field="event_timestamp", **transformed)
    training = view(repo, "training_view")
    training.online = False
    delta = view(repo, "delta_view")
    delta.batch_source.file_options.file_format = DeltaFormat()

    @on_demand_feature_view(
        sources=[plain],
        entities=[USER],
        schema=[Field(name="twice", dtype=Float64)],
        mode="pandas",
        write_to_online_store=True,
    )
    def written_view(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": inputs["f"] * 2})

    chosen = FeatureService(name="chosen", features=[plain])
    store.apply([USER, plain, batch, stream, training, delta, written_view, chosen])
    for name in ["plain_view", "batch_view", "stream_view"]:
        store.materialize(AT - timedelta(days=1), AT + timedelta(days=1), feature_views=[name])

    asked = ["plain_view:f"], ["batch_view:f"], ["stream_view:f"]
    online = larder_server(larder, repo, None, "--feast-values", "online").until_healthy("/ready")
    for features in asked:
        expected = feasts(store, features)
        expected.pop("k", None)
        checks.equal(f"{features} from the online store", values(online, features), expected)
    refused(checks, online, "training_view", "online=False")
    for name in ["batch_view", "stream_view", "delta_view", "written_view"]:
        body = {"start_ts": "2020-01-01", "end_ts": "2030-01-01", "feature_views": [name]}
        status, answer = online.post("/materialize", body)
        checks.true(f"{name} is not materialized", status == 400 and "cannot be materialized" in str(answer), answer)
    status, answer = online.post("/materialize", {"start_ts": "2020-01-01", "end_ts": "2030-01-01"})
    skipped = sorted(answer["skipped"]) if status == 200 and answer else (status, answer)
    expected_skips = ["batch_view", "delta_view", "stream_view", "training_view", "written_view"]
    checks.equal("the skipped views", skipped, expected_skips)
    checks.true("the reason why a view is skipped", "write_to_online_store" in answer["skipped"]["written_view"], answer)
    checks.true("the log has the skipped views", "materialization skips a feature view" in online.log.read_text())
    checks.equal("values after a materialization that skips the view", values(online, ["batch_view:f"]), {"f": feasts(store, ["batch_view:f"])["f"]})
    online.kill()

    files = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy("/ready")
    checks.equal("from files", values(files, ["plain_view:f"]), {"f": [1.0, 2.0]})
    refused(checks, files, "batch_view", "it has a transformation")
    refused(checks, files, "stream_view", "it has a transformation")
    refused(checks, files, "training_view", "online=False")
    refused(checks, files, "delta_view", "it is a Delta table")
    files.kill()


def names(checks: Checks, larder: str, repo: Path) -> None:
    """Feast accepts any text as a name. Checks that services, views and features with such names are served."""
    store = repository(repo)
    schema = [Field(name=name, dtype=Float64) for name in ODD]
    odd = [view(repo, name, schema, **{feature: [1.0, 2.0] for feature in ODD}) for name in ODD]
    services = [FeatureService(name=one.name, features=[one]) for one in odd]
    store.apply([USER, *odd, *services])
    server = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy("/ready")
    for name in ODD:
        body = {"feature_service": name, "entities": {"k": [1]}, "full_feature_names": True}
        status, answer = server.columns(body)
        expected = sorted(["k", *[f"{name}__{feature}" for feature in ODD]])
        checks.true(f"service {name[:20]}", status == 200 and sorted(answer) == expected, (status, str(answer)[:300]))
        checks.equal(f"feature {name[:20]}", values(server, [f"{ODD[0]}:{name}"])[name], [1.0, 2.0])
    server.kill()


def definitions_that_come_later(checks: Checks, larder: str, dir: Path) -> None:
    """Checks that Larder starts without a registry or with an empty one, and uses views as soon as they are applied."""
    for what, registry in [("absent", None), ("empty", b"")]:
        repo = dir / what
        make_repo(repo, "")
        if registry is not None:
            (repo / "data/registry.db").write_bytes(registry)
        server = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy()
        checks.equal(f"{what}: ready", server.get("/ready"), 503)
        store = repository(repo, registry)
        store.apply([USER, view(repo, "first_view")])
        eventually(f"{what}: ready after apply", lambda: server.get("/ready") == 200, server.log.read_text)
        checks.equal(f"{what}: served", values(server, ["first_view:f"]), {"f": [1.0, 2.0]})
        server.kill()

    # With this setting, Larder does not check its files for changes, so only requests cause a reload.
    repo = dir / "absent"
    (repo / "larder.yaml").write_text("reload: {every: 1h}\n")
    server = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy("/ready")
    store = repository(repo)
    make_client(repo, dir / "client", server.url)
    client = FeatureStore(str(dir / "client"))
    frame = pd.DataFrame({"k": [7], "f": [7.0], "event_timestamp": [AT]})
    store.apply([view(repo, "second_view")])
    body = {"feature_view_name": "second_view", "df": {"k": [7], "f": [7.0], "event_timestamp": ["2026-11-01"]}}
    checks.equal("a cached registry", server.post("/write-to-online-store", body)[0], 404)
    client.refresh_registry()
    client.write_to_online_store("second_view", frame)
    checks.equal("a write after apply", values(server, ["second_view:f"], (7,)), {"f": [7.0]})
    store.apply([view(repo, "looked_up_view")])
    status, answer = server.columns({"features": ["looked_up_view:f"], "entities": {"k": [1]}})
    checks.equal("a lookup after apply", status, 200)
    server.kill()

    text = (repo / "feature_store.yaml").read_text()
    registry_path = "registry: {path: data/registry.db, allow_registry_cache: false}"
    (repo / "feature_store.yaml").write_text(text.replace("registry: data/registry.db", registry_path))
    server = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy("/ready")
    store.apply([view(repo, "third_view"), view(repo, "fourth_view")])
    body = {**body, "feature_view_name": "third_view"}
    checks.equal("a write with 'allow_registry_cache: false'", server.post("/write-to-online-store", body)[0], 200)
    store.apply([view(repo, "fifth_view")])
    status, answer = server.columns({"features": ["fifth_view:f"], "entities": {"k": [1]}})
    checks.equal("a lookup with 'allow_registry_cache: false'", status, 200)
    server.kill()

    registry_path = "registry: {path: data/registry.db, cache_ttl_seconds: 1}"
    (repo / "feature_store.yaml").write_text(text.replace("registry: data/registry.db", registry_path))
    server = larder_server(larder, repo, None, "--feast-values", "batch").until_healthy("/ready")
    store.apply([view(repo, "sixth_view")])

    def is_known() -> bool:
        with urllib.request.urlopen(f"{server.url}/v1/catalog") as answer:
            return "sixth_view" in answer.read().decode()

    eventually("a new view is known after the cache expires", is_known, server.log.read_text)
    checks.true("the new view is known", is_known())
    server.kill()


def main(larder: str, dir: Path) -> None:
    checks = Checks()
    checks.true("fields.txt has the fields of Feast's descriptors", FIELDS.read_text() == registry_fields())
    fields_that_change_answers(checks, larder, dir / "fields")
    names(checks, larder, dir / "names")
    definitions_that_come_later(checks, larder, dir / "later")
    checks.end()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if len(sys.argv) == 1:
        sys.stdout.write(registry_fields())
    else:
        main(sys.argv[1], Path(sys.argv[2]).resolve())
