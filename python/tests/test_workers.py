"""The requests that Spark and Ray send to their workers. `make test-distributed` tests the engines."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import unittest
from datetime import datetime, timezone
from typing import Any
from unittest import mock

import pyarrow

import larder
from larder import _request, _worker
from larder._set_request import SetRequest, selection
from world import FEATURES, Home

AT = datetime(2026, 11, 24, tzinfo=timezone.utc)
IDS = ["CUST_000124", "CUST_000123", "NOPE", "CUST_000125", "CUST_000123", None]
TIMES = [AT, AT, AT, AT, datetime(2020, 1, 1, tzinfo=timezone.utc), AT]


class Workers(unittest.TestCase):
    def setUp(self) -> None:
        self.home = Home()
        self.addCleanup(self.home.close)
        self.home.configure("127.0.0.1:0")
        self.entities = pyarrow.table({"customer_id": IDS, "event_timestamp": pyarrow.array(TIMES, pyarrow.timestamp("us", "UTC"))})
        store = larder.FeatureStore(self.home.dir / "larder.yaml")
        self.expected = store.get_historical_features(self.entities, FEATURES).to_arrow()
        set_request = SetRequest(selection(FEATURES, None), False, "event_timestamp", False, threads=1)
        request = _request.Request.of(store, set_request)
        request, _ = _request.on_driver(request, self.entities.schema, None)
        self.request = pickle.loads(pickle.dumps(request))

    def test_batches_of_partition_are_joined_together(self) -> None:
        running = []

        class Plan:
            def __init__(self, plan: Any) -> None:
                self.plan = plan

            def run(self, rows: object) -> Any:
                running.append(self.plan.run(rows))
                return running[-1]

        def on_worker(*arguments: Any, **options: Any) -> Plan:
            return Plan(_request.on_worker(*arguments, **options))

        with mock.patch("larder._worker.on_worker", on_worker):
            batches = list(_worker.run(self.request, self.entities.to_batches(max_chunksize=1)))
        self.assertTrue(pyarrow.Table.from_batches(batches).equals(self.expected))
        # The files are read once.
        self.assertEqual([one.report()["parts"] for one in running], [1])
        self.assertEqual(list(_worker.run(self.request, [])), [])

    def test_worker_keeps_its_plans(self) -> None:
        with mock.patch.dict(_request._plans, clear=True):
            plans = [_request.on_worker(self.request, self.entities.schema, reads_files=True) for _ in range(2)]
            self.assertIs(plans[0], plans[1])
            for number in range(2 * _request.PLANS_MAX):
                columns = self.entities.schema.append(pyarrow.field(f"column{number}", pyarrow.int64()))
                _request.on_worker(self.request, columns, reads_files=False)
            self.assertEqual(len(_request._plans), _request.PLANS_MAX)

    def test_rows_in_errors_count_all_batches(self) -> None:
        keys = pyarrow.array([b"a"] * 5 + [b"\xff"], pyarrow.binary())
        batches = self.entities.set_column(0, "customer_id", keys).to_batches(max_chunksize=2)
        for run in (
            lambda: _worker.run(self.request, batches),
            lambda: _worker.with_buckets(self.request, 0, 2, batches),
        ):
            with self.assertRaisesRegex(larder.TrainingError, "entity row 5, column 'customer_id': the bytes are not UTF-8"):
                list(run())

    def test_found_rows_keep_feature_type(self) -> None:
        (bucketed,) = _worker.with_buckets(self.request, 0, 1, self.entities.to_batches())
        tasks = [pyarrow.record_batch({"id": [0]})]
        features = pyarrow.Table.from_batches(list(_worker.feature_rows(self.request, self.entities.schema, [0], 1, 1, tasks)))
        for of, features in ((pyarrow.binary(), features), (pyarrow.large_binary(), large(features))):
            found = _worker.find(self.request, 0, pyarrow.Table.from_batches([bucketed]), features)
            self.assertEqual(found.schema.types[len(self.entities.schema) :], [of])
            answered = pyarrow.Table.from_batches(list(_worker.answer(self.request, found.to_batches())))
            self.assertTrue(answered.equals(self.expected))

    def test_changed_inputs_are_errors(self) -> None:
        _request.on_worker(self.request, self.entities.schema, reads_files=True)
        os.utime(self.home.dir / "data/customer_stats.parquet", (1, 1))
        with self.assertRaisesRegex(larder.TrainingError, "machine '.*': inputs differ from those of the driver: .*changed. hint"):
            _request.on_worker(self.request, self.entities.schema, reads_files=True)
        shutil.rmtree(self.home.dir / "data")
        with self.assertRaisesRegex(larder.TrainingError, "machine '.*': .*customer_stats"):
            _worker.run_table(self.entities, self.request)
        missing = dataclasses.replace(self.request, config="/nowhere/larder.yaml")
        with self.assertRaisesRegex(larder.ConfigError, "machine '.*': /nowhere/larder.yaml does not exist. hint"):
            _worker.run_table(self.entities, missing)


def large(rows: pyarrow.Table) -> pyarrow.Table:
    """Returns rows whose bytes have the type that Spark uses with the setting useLargeVarTypes."""
    fields = [field.with_type(pyarrow.large_binary()) if field.type == pyarrow.binary() else field for field in rows.schema]
    return rows.cast(pyarrow.schema(fields))


if __name__ == "__main__":
    unittest.main()
