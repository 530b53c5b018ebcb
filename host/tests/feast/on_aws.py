"""A registry in S3 and tables in DynamoDB that Feast wrote, which Larder serves with its production configuration.
Compares the responses of Larder and Feast, before and after changes of rows and definitions.

Usage: on_aws.py LARDER DIR PLUGINS

The environment variable MOTO_URL is the URL of a server that emulates S3 and DynamoDB, and CONFIGS is the directory of
the shipped configurations.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

URL = os.environ["MOTO_URL"]
os.environ.update(
    AWS_ACCESS_KEY_ID="stand-in",
    AWS_SECRET_ACCESS_KEY="stand-in",
    AWS_DEFAULT_REGION="eu-west-1",
    AWS_REGION="eu-west-1",
    AWS_ENDPOINT_URL=URL,
    FEAST_S3_ENDPOINT_URL=URL,
    LARDER_AWS_S3_PATH_STYLE="true",
)

import boto3  # noqa: E402
import pandas as pd  # noqa: E402
from feast import FeatureStore  # noqa: E402
from world import Checks, Server, eventually, feast, feast_server, free_port  # noqa: E402

NOW = datetime.now(timezone.utc).replace(microsecond=0)
BUCKET = "acme-features"

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
stats = FeatureView(
    name="customer_stats", entities=[customer], ttl=timedelta(days=0),
    schema=[Field(name="spend", dtype=Float64), Field(name="orders", dtype=Int64), Field(name="tags", dtype=Array(String)),
            Field(name="vip", dtype=Bool), Field(name="seen", dtype=UnixTimestamp)],
    source=FileSource(path="data/customers.parquet", timestamp_field="event_timestamp"),
)
pairs = FeatureView(
    name="pair_stats", entities=[customer, driver], ttl=timedelta(days=0),
    schema=[Field(name="trips", dtype=Int64)],
    source=FileSource(path="data/pairs.parquet", timestamp_field="event_timestamp"),
)
service = FeatureService(name="everything", features=[stats, pairs])
"""


def customers(spend: float) -> pd.DataFrame:
    count = 200
    return pd.DataFrame(
        {
            "customer_id": [f"C{n:03}" for n in range(count)],
            "event_timestamp": [NOW - timedelta(minutes=5)] * count,
            "spend": [spend + n for n in range(count)],
            "orders": [2**53 + n for n in range(count)],
            "tags": [["a", str(n)] for n in range(count)],
            "vip": [n % 2 == 0 for n in range(count)],
            "seen": [NOW - timedelta(days=n) for n in range(count)],
        }
    )


def put(client: Any, key: str, frame: pd.DataFrame) -> None:
    body = io.BytesIO()
    frame.to_parquet(body)
    client.put_object(Bucket=BUCKET, Key=key, Body=body.getvalue())


def questions() -> list[dict[str, Any]]:
    keys = {"customer_id": ["C000", "C007", "C199", "nobody"], "driver_id": [1, 2, 1, 3]}
    stats = [f"customer_stats:{name}" for name in ("spend", "orders", "tags", "vip", "seen")]
    return [
        {"features": stats, "entities": {"customer_id": keys["customer_id"]}},
        {"feature_service": "everything", "entities": keys},
        {"features": ["pair_stats:trips"], "entities": keys, "full_feature_names": True},
    ]


def main() -> None:
    larder, home = sys.argv[1], Path(sys.argv[2])
    checks = Checks()
    s3, dynamo = boto3.client("s3"), boto3.client("dynamodb")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    configs = home / "configs"
    shutil.copytree(os.environ["CONFIGS"], configs)
    config = configs / "production.yaml"
    text = config.read_text().replace("feast: {repo: production/feast}", "feast: {repo: production/feast, every: 2s}")
    config.write_text(text + "\nreload: {registry_every: 1s}\nsync: {retry: 500ms}\n")
    repo = configs / "production/feast"
    (repo / "data").mkdir()
    (repo / "definitions.py").write_text(DEFINITIONS)
    customers(1.0).to_parquet(repo / "data/customers.parquet")
    pairs = pd.DataFrame({"customer_id": ["C000", "C007"], "driver_id": [1, 2], "trips": [10, 20]})
    pairs.assign(event_timestamp=NOW - timedelta(minutes=5)).to_parquet(repo / "data/pairs.parquet")
    feast(repo, "apply")
    feast(repo, "materialize-incremental", (NOW + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%S"))

    merchants = pd.DataFrame({"merchant_id": ["M1", "M2"], "risk_score": [0.5, 0.25], "chargebacks_90d": [1, 2]})
    put(s3, "merchant_risk/part-0.parquet", merchants.assign(event_timestamp=NOW))
    s3.put_object(Bucket=BUCKET, Key="merchant_risk/_SUCCESS", Body=b"")
    dynamo.create_table(
        TableName="acme-merchant-limits",
        KeySchema=[{"AttributeName": "merchant_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "merchant_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )

    def limit(merchant: str, amount: str) -> None:
        item = {
            "merchant_id": {"S": merchant},
            "daily_limit": {"N": amount},
            "is_blocked": {"BOOL": False},
            "updated_at": {"S": NOW.isoformat()},
        }
        dynamo.put_item(TableName="acme-merchant-limits", Item=item)

    limit("M1", "100")
    # Feast creates tables without streams. With streams, Larder follows their changes.
    for table in ("churn_prediction.customer_stats", "churn_prediction.pair_stats"):
        stream = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        dynamo.update_table(TableName=table, StreamSpecification=stream)

    theirs = feast_server(repo).until_healthy()
    port = free_port()
    os.environ.update(LARDER_SERVER_LISTEN=f"127.0.0.1:{port}", LARDER_STORE_DATA_DIR=str(home / "store"))
    ours = Server("larder", [larder, "serve", "--config", str(config)], home, port).until_healthy("/ready")

    def compare(when: str) -> None:
        for place, question in enumerate(questions()):
            checks.equal(f"{when}, question {place}", ours.columns(question), theirs.columns(question))

    compare("at first")
    asked = {"features": ["merchant_risk:risk_score", "merchant_limits:daily_limit"], "entities": {"merchant_id": ["M1", "M2"]}}
    status, answer = ours.post("/get-online-features", asked)
    values = [result["values"] for result in answer["results"][1:]]
    checks.equal("values from S3 and from a table that Feast did not write", (status, values), (200, [[0.5, 0.25], [100.0, None]]))

    # Feast writes to its online store, and Larder follows the stream.
    FeatureStore(str(repo)).write_to_online_store("customer_stats", customers(5_000.0))
    limit("M1", "250")
    eventually("the row that Feast wrote is served", lambda: ours.columns(questions()[0]) == theirs.columns(questions()[0]))
    eventually(
        "the changed limit is served",
        lambda: ours.post("/get-online-features", asked)[1]["results"][2]["values"][0] == 250.0,
    )
    compare("after a write")

    # A new view appears in the registry.
    more = '\nmore = FeatureView(name="more_stats", entities=[customer], ttl=timedelta(days=0),\n' \
        '    schema=[Field(name="orders", dtype=Int64)],\n' \
        '    source=FileSource(path="data/customers.parquet", timestamp_field="event_timestamp"))\n'
    (repo / "definitions.py").write_text(DEFINITIONS + more)
    feast(repo, "apply")
    feast(repo, "materialize-incremental", (NOW + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%S"))
    new = {"features": ["more_stats:orders"], "entities": {"customer_id": ["C000", "C001"]}}
    expected = [2**53, 2**53 + 1]
    eventually(
        "the new view is served",
        lambda: ours.post("/get-online-features", new)[1].get("results", [0, {}])[1].get("values") == expected,
        lambda: f"{ours.post('/get-online-features', new)}",
    )
    compare("after feast apply")
    checks.equal("ready at the end", ours.get("/ready"), 200)
    log = ours.log.read_text()
    checks.true("no keys in the log", "stand-in" not in log, log)
    checks.end()


main()
