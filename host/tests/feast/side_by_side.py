"""Compares `feast serve` and Larder, which serve the same repository of a small shop, over HTTP and with Feast's SDK.

Usage: side_by_side.py LARDER DIR PLUGINS
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureService, FeatureStore
from feast.data_source import PushMode
from feast.errors import FeatureServiceNotFoundException, FeatureViewNotFoundException
from world import Checks, Server, error_of, eventually, feast, feast_server, larder_server, make_client, make_repo

NOW = datetime.now(timezone.utc).replace(microsecond=0)
EVERY_TYPE = (
    "orders level basket balance is_member city avatar last_seen tags recent taste scores sizes flags pictures visits "
    "profile device settings"
).split()


def write_data(repo: Path) -> None:
    hours = lambda *ago: [NOW - timedelta(hours=hour) for hour in ago]  # noqa: E731
    tables: dict[str, dict[str, Any]] = {
        "shoppers": {
            "shopper_id": ["A", "B", "C", "A"],
            "event_timestamp": hours(2, 3, 4, 30),
            "created": hours(1, 1, 1, 1),
            "orders": [7, 8, 0, 1],
            "level": pd.array([1, 2, 0, 3], dtype="int32"),
            "basket": pd.array([0.1, 2.5, 0.0, 9.0], dtype="float32"),
            "balance": [1234.5678901234567, float("nan"), 0.0, 9.0],
            "is_member": [True, False, False, True],
            "city": ["Zürich 中", None, "", "old"],
            "avatar": [b"\x00\xff", None, b"", b"old"],
            "last_seen": [NOW - timedelta(days=1), None, NOW, NOW],
            "tags": [["a", ""], None, ["b"], ["old"]],
            "recent": [[1, 2], None, [-1], [9]],
            "taste": [[0.5, 0.1], None, [1.0], [9.0]],
            "scores": [[0.1, -1e300], None, [0.0], [9.0]],
            "sizes": [[1, -2], None, [0], [9]],
            "flags": [[True, False], None, [False], [True]],
            "pictures": [[b"\x00", b""], None, [b"a"], [b"old"]],
            "visits": [[NOW, NOW - timedelta(days=400)], None, [NOW], [NOW]],
            "profile": ['{"a": [1, 2.5], "b": null}', None, "[]", "1"],
            "device": ["123e4567-e89b-42d3-a456-426614174000", None, None, None],
            "settings": [{"theme": "dark", "size": "2"}, None, {"theme": "", "size": "1"}, None],
        },
        "drivers": {
            "driver_id": [1001, 1002, 1003],
            "event_timestamp": hours(1, 2, 3),
            "created": hours(1, 1, 1),
            "conv_rate": [0.6001, 0.25, 1.0],
            "avg_daily_trips": [1001, 12, 0],
        },
        "trips": {"shopper_id": ["A", "B"], "driver_id": [1001, 1002], "event_timestamp": hours(1, 2), "rides": [3, 4]},
        # The TTL is an hour: the first row is expired, the second one is not.
        "zones": {
            "zone_id": pd.array([7, -8], dtype="int32"),
            "event_timestamp": [NOW - timedelta(days=3), NOW],
            "traffic": pd.array([0.1, 2.0], dtype="float32"),
        },
        "town": {"event_timestamp": hours(1), "rain": [7.25]},
        "legacy": {"usr": ["A"], "ts": hours(5), "pts": [42]},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(repo / f"data/{name}.parquet")


def by_http(checks: Checks, ours: Server, theirs: Server) -> None:
    everything = [f"shopper_stats:{name}" for name in EVERY_TYPE]
    both = {"shopper_id": ["A", "B", "nobody"], "driver_id": [1001, 1002, 1003]}
    bodies: dict[str, Any] = {
        "every type": {"features": everything, "entities": {"shopper_id": ["A", "B", "C", "nobody", "A"]}},
        "full names": {
            "features": ["shopper_stats:city", "driver_stats:conv_rate"],
            "entities": both,
            "full_feature_names": True,
        },
        "a service": {"feature_service": "everything", "entities": both},
        "a service with aliases": {
            "feature_service": "route",
            "entities": {"start_driver_id": [1001], "end_driver_id": [1002]},
            "full_feature_names": True,
        },
        "two keys": {"features": ["trip_stats:rides"], "entities": both},
        "no entity": {"features": ["town_stats:rain"], "entities": {"driver_id": [1]}},
        "mapped columns": {"features": ["legacy_stats:points"], "entities": {"shopper_id": ["A", "B"]}},
        "keys of another type": {"features": ["driver_stats:conv_rate"], "entities": {"driver_id": ["1001", 1002.0]}},
        "computed": {
            "feature_service": "with_derived",
            "entities": {"driver_id": [1001, 5], "amount": [2.0, 3.0], "hour": [1, 2]},
        },
        "computed alone": {
            "features": ["odfv_python:label"],
            "entities": {"driver_id": [1001], "amount": [2.0], "hour": [23]},
        },
    }
    for what, body in bodies.items():
        checks.equal(what, ours.columns(body), theirs.columns(body))
    # Feast serves expired rows with the status of fresh rows, so the expected statuses are replaced.
    body = {"features": ["zone_stats:traffic"], "entities": {"zone_id": [7, -8, 9, "7"]}}
    (status, found), (_, expected) = ours.columns(body), theirs.columns(body)
    expected["traffic"]["statuses"] = ["OUTSIDE_MAX_AGE", "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
    checks.equal("an expired row", (status, found), (200, expected))

    mistakes: dict[str, Any] = {
        "an unknown view": {"features": ["nope:x"], "entities": {"shopper_id": ["A"]}},
        "an unknown service": {"feature_service": "nope", "entities": {"shopper_id": ["A"]}},
        "an unknown feature": {"features": ["driver_stats:x"], "entities": {"driver_id": [1]}},
        "no keys": {"features": ["driver_stats:conv_rate"], "entities": {"amount": [1]}},
        "request data missing": {
            "features": ["odfv_python:label"],
            "entities": {"driver_id": [1], "amount": [1.0]},
        },
        "no body": {},
    }
    for what, body in mistakes.items():
        (our_status, our_error), (their_status, their_error) = ours.columns(body), theirs.columns(body)
        if what == "no keys":
            # Feast lists the keys of all views of the project. Larder lists the keys that the request lacks.
            checks.true(f"{what}: the message", "for keys: ['driver_id']. No values" in our_error, our_error)
        else:
            checks.equal(f"{what}: the message", our_error, their_error)
        # Larder responds to errors of clients with 4xx, even if Feast responds with 500.
        fits = our_status == their_status or (their_status == 500 and 400 <= our_status < 500)
        checks.true(f"{what}: the status", fits, (our_status, their_status))


def read(store: FeatureStore, features: Any, rows: list[dict[str, Any]], full_names: bool = False) -> dict[str, list]:
    answer = store.get_online_features(features=features, entity_rows=rows, full_feature_names=full_names).to_dict()
    return dict(sorted(answer.items()))


def by_sdk(checks: Checks, ours: FeatureStore, theirs: FeatureStore, local: FeatureStore) -> None:
    shoppers = [{"shopper_id": "A"}, {"shopper_id": "nobody"}]
    asked: dict[str, tuple[Any, ...]] = {
        "sdk: features": (["shopper_stats:orders", "shopper_stats:city", "shopper_stats:basket"], shoppers),
        "sdk: full names": (["driver_stats:conv_rate"], [{"driver_id": 1001}], True),
        "sdk: two keys": (["trip_stats:rides"], [{"shopper_id": "A", "driver_id": 1001}]),
        "sdk: every type": ([f"shopper_stats:{name}" for name in EVERY_TYPE], shoppers),
        "sdk: a key of 32 bits": (["zone_stats:traffic"], [{"zone_id": -8}, {"zone_id": 9}]),
        "sdk: computed": (["odfv_python:conv_x_amount"], [{"driver_id": 1001, "amount": 2.0, "hour": 1}]),
    }
    for what, args in asked.items():
        answer = read(ours, *args)
        checks.equal(what, answer, read(theirs, *args))
        # Over HTTP, Feast's client does not convert bytes, timestamps and JSON, with any server.
        if what != "sdk: every type":
            checks.equal(f"{what}, without a server", answer, read(local, *args))
    asked_of: dict[str, list[dict[str, Any]]] = {
        "everything": [{"shopper_id": "A", "driver_id": 1001}],
        "with_derived": [{"driver_id": 1001, "amount": 2.0, "hour": 1}],
        "route": [{"start_driver_id": 1001, "end_driver_id": 1002}],
    }
    for name, rows in asked_of.items():
        # With full names, Feast's responses lack the columns of on-demand views in Python mode.
        for full_names in [False, True] if name == "everything" else [name == "route"]:
            answers = [read(store, store.get_feature_service(name), rows, full_names) for store in (ours, theirs)]
            checks.equal(f"sdk: service {name}, {full_names}", *answers)


def errors_by_sdk(checks: Checks, ours: FeatureStore, theirs: FeatureStore) -> None:
    """Compares errors of the servers as the SDK reports them. The calls bypass the SDK's own check of names."""
    entity = {"driver_id": [1001]}
    for what, wanted, features in [
        ("sdk: an unknown view", FeatureViewNotFoundException, ["nope:x"]),
        ("sdk: an unknown service", FeatureServiceNotFoundException, None),
    ]:
        def ask(store: FeatureStore, features: Any = features) -> Any:
            return store._get_provider().get_online_features(
                config=store.config,
                features=features or FeatureService(name="nope", features=[]),
                entity_rows=entity,
                registry=store.registry,
                project=store.project,
                full_feature_names=False,
            )

        error = error_of(lambda: ask(ours))
        checks.equal(what, error, error_of(lambda: ask(theirs)))
        checks.equal(f"{what}: its class", error[0], wanted.__name__)


def writes(checks: Checks, ours: Server, our_sdk: FeatureStore, theirs: Server, their_sdk: FeatureStore) -> None:
    def rate(server: Server, driver: int) -> Any:
        _, answer = server.columns({"features": ["driver_stats:conv_rate"], "entities": {"driver_id": [driver]}})
        return answer["conv_rate"]

    def frame(driver: int, rate: float) -> pd.DataFrame:
        row = {"driver_id": driver, "conv_rate": rate, "avg_daily_trips": 3, "event_timestamp": NOW, "created": NOW}
        return pd.DataFrame([row])

    for name, server, sdk, base in [("larder", ours, our_sdk, 9000), ("feast", theirs, their_sdk, 9100)]:
        sdk.push("driver_push", frame(base + 1, 0.125), to=PushMode.ONLINE)
        checks.equal(f"{name}: pushed by the sdk", rate(server, base + 1)["values"], [0.125])
        sdk.write_to_online_store("driver_stats", frame(base + 2, 0.5))
        checks.equal(f"{name}: written by the sdk", rate(server, base + 2)["values"], [0.5])
        df = frame(base + 3, 0.75).astype({"event_timestamp": str, "created": str}).to_dict(orient="list")
        status = server.post("/push", {"push_source_name": "driver_push", "df": df, "to": "online"})
        checks.equal(f"{name}: pushed by http", (status, rate(server, base + 3)["values"]), ((200, None), [0.75]))
        # pandas represents a missing value as NaN.
        df = frame(base + 4, 0.75).astype({"event_timestamp": str, "created": str}).to_dict(orient="list")
        df["conv_rate"] = [float("nan")]
        status = server.post("/write-to-online-store", {"feature_view_name": "driver_stats", "df": df})
        checks.equal(f"{name}: NaN", (status, rate(server, base + 4)["values"]), ((200, None), [None]))
    for what, path, body in [
        ("an unknown push source", "/push", {"push_source_name": "nope", "df": {"a": [1]}, "to": "online"}),
        ("an unknown view", "/write-to-online-store", {"feature_view_name": "nope", "df": {"a": [1]}}),
    ]:
        checks.equal(f"writes: {what}", ours.post(path, body), theirs.post(path, body))
    # Rows that Feast writes to its store are served by Larder soon, and rows that callers wrote to Larder stay. Larder may
    # read the store between any two of Feast's writes.
    drivers = range(9101, 9105)
    eventually("Larder serves the rows that Feast wrote", lambda: all(rate(ours, driver)["statuses"] != ["NOT_FOUND"] for driver in drivers))
    for driver in drivers:
        checks.equal(f"a row that Feast wrote: {driver}", rate(ours, driver), rate(theirs, driver))
    checks.equal("a row that was written to Larder", rate(ours, 9001)["values"], [0.125])


def main() -> None:
    larder, base, plugins = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    checks = Checks()
    repo = base / "repo"
    make_repo(repo, (Path(__file__).parent / "shop.py").read_text())
    write_data(repo)
    feast(repo, "apply")
    feast(repo, "materialize", "2020-01-01T00:00:00", (NOW + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S"))
    theirs, ours = feast_server(repo), larder_server(larder, repo, plugins)
    try:
        ours.until_healthy("/ready")
        theirs.until_healthy()
        by_http(checks, ours, theirs)
        for name, server in [("ours", ours), ("theirs", theirs)]:
            make_client(repo, base / name, server.url)
        our_sdk, their_sdk = FeatureStore(str(base / "ours")), FeatureStore(str(base / "theirs"))
        by_sdk(checks, our_sdk, their_sdk, FeatureStore(str(repo)))
        errors_by_sdk(checks, our_sdk, their_sdk)
        writes(checks, ours, our_sdk, theirs, their_sdk)

        # Writes that were acknowledged survive a kill.
        ours.kill()
        ours = larder_server(larder, repo, plugins).until_healthy("/ready")
        body = {"features": ["driver_stats:conv_rate"], "entities": {"driver_id": [9001, 9002, 9003]}}
        checks.equal("after a kill", ours.columns(body)[1]["conv_rate"]["values"], [0.125, 0.5, 0.75])

        # A new view is applied while Larder serves.
        more = '\nmore = FeatureView(name="more_stats", entities=[driver], ttl=FOR_YEARS, source=drivers, schema=[\n'
        more += '    Field(name="driver_id", dtype=Int64), Field(name="conv_rate", dtype=Float64)])\n'
        with (repo / "definitions.py").open("a") as definitions:
            definitions.write(more)
        feast(repo, "apply")
        body = {"features": ["more_stats:conv_rate"], "entities": {"driver_id": [1001]}}
        eventually("the new view is served", lambda: ours.columns(body)[0] == 200)
        feast(repo, "materialize", "2020-01-01T00:00:00", (NOW + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S"))
        eventually("the rows of the new view are served", lambda: ours.columns(body)[1]["conv_rate"]["values"] == [0.6001])
    finally:
        theirs.kill()
        ours.kill()
    checks.end()


if __name__ == "__main__":
    main()
