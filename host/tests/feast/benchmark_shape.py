"""Data of the same shape as in Feast's public benchmark: views of ten numbers, and services of 50, 100 and 200 features.
Compares every column of the responses of Larder and Feast.

Usage: benchmark_shape.py LARDER DIR
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
from world import Checks, feast, feast_server, larder_server, make_repo

VIEWS, FEATURES, ENTITIES, ASKED = 20, 10, 500, 100

DEFINITIONS = f"""\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)
source = FileSource(name="numbers", path="data/numbers.parquet", timestamp_field="event_timestamp")
views = [
    FeatureView(
        name=f"feature_view_{{view}}",
        entities=[entity],
        ttl=timedelta(days=3650),
        source=source,
        schema=[Field(name="entity", dtype=Int64)]
        + [Field(name=f"feature_{{view * {FEATURES} + place}}", dtype=Int64) for place in range({FEATURES})],
    )
    for view in range({VIEWS})
]
for count in (5, 10, 20):
    globals()[f"service_{{count * {FEATURES}}}"] = FeatureService(
        name=f"service_{{count * {FEATURES}}}", features=views[:count]
    )
for view in views:
    globals()[view.name] = view
"""


def main() -> None:
    larder, repo = sys.argv[1], Path(sys.argv[2]) / "repo"
    checks = Checks()
    make_repo(repo, DEFINITIONS)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    dice = np.random.default_rng(1)
    columns = {f"feature_{place}": dice.integers(-(2**53), 2**53, ENTITIES) for place in range(VIEWS * FEATURES)}
    table = pd.DataFrame({"entity": range(ENTITIES), "event_timestamp": now - timedelta(hours=1), **columns})
    table.to_parquet(repo / "data/numbers.parquet")
    feast(repo, "apply")
    feast(repo, "materialize", "2020-01-01T00:00:00", (now + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%S"))
    (repo / "batch.yaml").write_text("store: {data_dir: data/batch}\n")
    servers = [
        larder_server(larder, repo, None),
        larder_server(larder, repo, None, "--feast-values", "batch", "--config", "batch.yaml"),
    ]
    theirs = feast_server(repo)
    try:
        for server in servers:
            server.until_healthy("/ready")
        theirs.until_healthy()
        entities = random.Random(1).sample(range(ENTITIES + 10), ASKED)
        for count in (50, 100, 200):
            body = {"feature_service": f"service_{count}", "entities": {"entity": entities}}
            expected = theirs.columns(body)
            checks.equal(f"Feast returns {count} features", len(expected[1]), count + 1)
            for server, source in zip(servers, ["the online store", "the files"]):
                checks.equal(f"{count} features from {source}", server.columns(body), expected)
    finally:
        for server in [*servers, theirs]:
            server.kill()
    checks.end()


if __name__ == "__main__":
    main()
