"""The definitions of a small shop. The tests copy this file into a repository, where `feast apply` reads it."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, String, UnixTimestamp, Uuid

FOR_YEARS = timedelta(days=3650)

shopper = Entity(name="shopper", join_keys=["shopper_id"], value_type=ValueType.STRING)
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
zone = Entity(name="zone", join_keys=["zone_id"], value_type=ValueType.INT32)

shoppers = FileSource(
    name="shoppers", path="data/shoppers.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
)
drivers = FileSource(
    name="drivers", path="data/drivers.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
)
trips = FileSource(name="trips", path="data/trips.parquet", timestamp_field="event_timestamp")
zones = FileSource(name="zones", path="data/zones.parquet", timestamp_field="event_timestamp")
town = FileSource(name="town", path="data/town.parquet", timestamp_field="event_timestamp")
legacy = FileSource(
    name="legacy",
    path="data/legacy.parquet",
    timestamp_field="seen_at",
    field_mapping={"usr": "shopper_id", "ts": "seen_at", "pts": "points"},
)

shopper_stats = FeatureView(
    name="shopper_stats",
    entities=[shopper],
    ttl=FOR_YEARS,
    source=shoppers,
    schema=[
        Field(name="shopper_id", dtype=String),
        Field(name="orders", dtype=Int64),
        Field(name="level", dtype=Int32),
        Field(name="basket", dtype=Float32),
        Field(name="balance", dtype=Float64),
        Field(name="is_member", dtype=Bool),
        Field(name="city", dtype=String),
        Field(name="avatar", dtype=Bytes),
        Field(name="last_seen", dtype=UnixTimestamp),
        Field(name="tags", dtype=Array(String)),
        Field(name="recent", dtype=Array(Int64)),
        Field(name="taste", dtype=Array(Float32)),
        Field(name="scores", dtype=Array(Float64)),
        Field(name="sizes", dtype=Array(Int32)),
        Field(name="flags", dtype=Array(Bool)),
        Field(name="pictures", dtype=Array(Bytes)),
        Field(name="visits", dtype=Array(UnixTimestamp)),
        Field(name="profile", dtype=Json),
        Field(name="device", dtype=Uuid),
        Field(name="settings", dtype=Map),
    ],
    tags={"owner": "shop"},
)
driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(0),
    source=PushSource(name="driver_push", batch_source=drivers),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="conv_rate", dtype=Float64),
        Field(name="avg_daily_trips", dtype=Int64),
    ],
)
trip_stats = FeatureView(
    name="trip_stats",
    entities=[shopper, driver],
    ttl=FOR_YEARS,
    source=trips,
    schema=[
        Field(name="shopper_id", dtype=String),
        Field(name="driver_id", dtype=Int64),
        Field(name="rides", dtype=Int64),
    ],
)
zone_stats = FeatureView(
    name="zone_stats",
    entities=[zone],
    ttl=timedelta(hours=1),
    source=zones,
    schema=[Field(name="zone_id", dtype=Int32), Field(name="traffic", dtype=Float32)],
)
town_stats = FeatureView(
    name="town_stats", entities=[], ttl=FOR_YEARS, source=town, schema=[Field(name="rain", dtype=Float64)]
)
legacy_stats = FeatureView(
    name="legacy_stats",
    entities=[shopper],
    ttl=FOR_YEARS,
    source=legacy,
    schema=[Field(name="shopper_id", dtype=String), Field(name="points", dtype=Int64)],
)

asked = RequestSource(name="asked", schema=[Field(name="amount", dtype=Float64), Field(name="hour", dtype=Int64)])


@on_demand_feature_view(
    sources=[driver_stats, asked],
    mode="python",
    schema=[Field(name="conv_x_amount", dtype=Float64), Field(name="label", dtype=String)],
)
def odfv_python(inputs: dict) -> dict:
    """Returns the rate times the amount, and the hour as text. The plugin with this name computes the same values."""
    pairs = zip(inputs["conv_rate"], inputs["amount"])
    return {
        "conv_x_amount": [None if rate is None else rate * amount for rate, amount in pairs],
        "label": ["h" + str(hour) for hour in inputs["hour"]],
    }


everything = FeatureService(
    name="everything", features=[shopper_stats[["orders", "city", "tags"]], driver_stats, trip_stats]
)
with_derived = FeatureService(name="with_derived", features=[driver_stats[["conv_rate"]], odfv_python])
route = FeatureService(
    name="route",
    features=[
        driver_stats[["conv_rate"]].with_name("start").with_join_key_map({"driver_id": "start_driver_id"}),
        driver_stats[["conv_rate"]].with_name("end").with_join_key_map({"driver_id": "end_driver_id"}),
    ],
)
