"""Joins random views in the steps of a distributed join, with Arrow alone, and compares the set with the one of one machine.

Usage: shuffled.py PROGRAM DIRECTORY
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

import larder
from cases import KEYS, World
from larder import _request, _worker
from larder._set_request import SetRequest
from values import TYPES, column

SEEDS = range(2)
VIEWS = 8
ENTITY_ROWS = 300
OPTIONS = [
    {"ttl": "mark", "event_timestamps": True},
    {"ttl": "null", "known_at": "created"},
    {"ttl": "ignore"},
]


def entity_rows(world: World, unit: str, zone: str | None) -> pa.Table:
    columns = {name: pa.array(world.entities[name], TYPES[key.declared]) for name, key in KEYS.items()}
    scale = {"ms": lambda time: time // 1_000, "us": lambda time: time, "ns": lambda time: time * 1_000}[unit]
    times = [None if time is None else scale(time) for time in world.entities["event_timestamp"]]
    columns["event_timestamp"] = pa.array(times, pa.int64()).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    columns["row"] = pa.array(world.entities["row"], pa.int64())
    return pa.table(columns)


def shuffled(request: _request.Request, plan: object, rows: pa.Table, buckets: int, dice: random.Random) -> pa.Table:
    """Runs the steps of the join. The order of the rows of a bucket is random."""
    columns = rows.schema
    for key, reads in enumerate(plan.keys()):
        bucketed = pa.Table.from_batches(list(_worker.with_buckets(request, key, buckets, parts_of(rows, dice))))
        tasks = [pa.record_batch({"id": [task]}) for task in range(buckets * len(reads))]
        dice.shuffle(tasks)
        features = pa.Table.from_batches(list(_worker.feature_rows(request, columns, reads, buckets, buckets, tasks)))
        found = []
        for bucket in range(buckets):
            left, right = (of.filter(pc.equal(of["__larder_bucket"], bucket)) for of in (bucketed, features))
            right = right.take(pa.array(dice.sample(range(len(right)), len(right)), pa.int64()))
            found.append(_worker.find(request, key, left, right))
        rows = pa.concat_tables(found)
    return pa.Table.from_batches(list(_worker.answer(request, parts_of(rows, dice))))


def parts_of(rows: pa.Table, dice: random.Random) -> list[pa.RecordBatch]:
    parts = rows.to_batches(max_chunksize=dice.choice([1_000, 64, 7]))
    dice.shuffle(parts)
    return parts


def main() -> None:
    differing = values = 0
    for seed in SEEDS:
        dice = random.Random(seed)
        world = World(Path(sys.argv[2]) / str(seed), seed, VIEWS, ENTITY_ROWS)
        store = larder.FeatureStore(world.directory / "larder.yaml")
        for options in OPTIONS:
            rows = entity_rows(world, dice.choice(["us", "ns", "ms"]), dice.choice([None, "UTC", "America/New_York"]))
            options = {"feature_service": "all", "full_feature_names": True, **options}
            expected = store.get_historical_features(rows, **options).to_arrow().sort_by("row")
            arguments = {name: value for name, value in options.items() if name != "feature_service"}
            service = (options["feature_service"], ())
            set_request = SetRequest(service, timestamp_column="event_timestamp", strict=False, threads=1, **arguments)
            request = _request.Request.of(store, set_request)
            request, plan = _request.on_driver(request, rows.schema, None)
            set_ = shuffled(request, plan, rows, dice.choice([1, 2, 5]), dice).sort_by("row")
            assert set_.column_names == expected.column_names, set_.column_names
            for name in expected.column_names:
                one, other = column(expected[name]), column(set_[name])
                differ = sum(a != b for a, b in zip(one, other))
                values, differing = values + len(one), differing + differ + abs(len(one) - len(other))
                if differ > 0:
                    print(f"seed {seed}, {options}: {differ} values of {name} differ")
    print(f"{values} values, {differing} of them differ")
    sys.exit(differing > 0)


main()
