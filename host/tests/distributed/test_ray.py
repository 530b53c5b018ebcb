"""Training sets on a local Ray cluster."""

from __future__ import annotations

import logging
import unittest
from typing import Any

import pyarrow as pa
import ray
import ray.data
import world
from forms import Forms

import larder
import larder.ray


class Tasks(Forms):
    batch_size: int | None = 1_000_000

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        ray.init(
            num_cpus=2,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(world.directory()),
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    @classmethod
    def tearDownClass(cls) -> None:
        ray.shutdown()

    def collect(self, dataset: ray.data.Dataset) -> pa.Table:
        return pa.concat_tables(ray.get(dataset.to_arrow_refs()))

    def join(self, rows: pa.Table, partitions: int | None = None, **options: Any) -> pa.Table:
        dataset = ray.data.from_arrow(rows).repartition(partitions or self.partitions)
        options = {"batch_size": self.batch_size, **options}
        return self.collect(larder.ray.get_historical_features(dataset, **options))

    def derive(self, rows: pa.Table, **options: Any) -> pa.Table:
        dataset = ray.data.from_arrow(rows).repartition(self.partitions)
        return self.collect(larder.ray.apply_derived(dataset, **options))

    def test_size_of_batches_does_not_matter(self) -> None:
        expected = self.store.get_historical_features(self.rows, world.FEATURES).to_arrow()
        for size in (None, 100):
            found = self.join(self.rows, store=self.store, features=world.FEATURES, batch_size=size)
            self.assertEqual(world.digest(found), world.digest(expected), size)

    def test_blocks_of_pandas(self) -> None:
        rows = world.churn_rows()
        store = larder.FeatureStore(world.churn())
        expected = store.get_historical_features(rows, feature_service="churn_prediction_derived").to_arrow()
        dataset = ray.data.from_pandas(rows.to_pandas())
        found = larder.ray.get_historical_features(
            dataset, feature_service="churn_prediction_derived", store=store, map_options={"num_cpus": 0.5}
        )
        # A time of pandas has nanoseconds, and a float of pandas has NaN instead of null.
        names = [name for name in expected.column_names if name not in ("event_timestamp", "discount_percent")]
        self.assertEqual(world.digest(self.collect(found).select(names)), world.digest(expected.select(names)))

    def test_dataset_without_rows_stays_empty(self) -> None:
        dataset = ray.data.from_arrow(self.rows)
        for rows in (
            ray.data.from_arrow(self.rows.slice(0, 0)),
            # Ray loses the columns of these.
            ray.data.from_arrow(self.rows.slice(0, 0)).repartition(3),
            dataset.filter(lambda row: False).materialize(),
            ray.data.from_items([]),
        ):
            found = larder.ray.get_historical_features(rows, world.FEATURES, store=self.store)
            self.assertEqual(found.count(), 0)
            self.assertEqual(larder.ray.apply_derived(found, world.TIMED, store=self.store).count(), 0)

    def test_python_objects_are_errors(self) -> None:
        # The times have nulls.
        dataset = ray.data.from_arrow(self.rows.select(["row", "account", "event_timestamp"]))
        filtered = dataset.filter(lambda row: True)
        message = "column 'event_timestamp' has Python objects .* hint: instead of filter"
        with self.assertRaisesRegex(Exception, message):
            larder.ray.get_historical_features(filtered, ["accounts:x2"], store=self.store).materialize()
        # Ray knows the types of results.
        filtered = filtered.materialize()
        with self.assertRaisesRegex(larder.TrainingError, message):
            larder.ray.get_historical_features(filtered, ["accounts:x2"], store=self.store)
        # Python objects in another column do not matter.
        objects = dataset.filter(expr="row < 4").map_batches(with_objects, batch_format="pyarrow")
        found = larder.ray.get_historical_features(objects, ["accounts:x2"], store=self.store)
        self.assertEqual([row["objects"] for row in found.take_all()], [{1}] * 4)

    def test_datasets_of_other_packages_are_errors(self) -> None:
        for dataset, name in ((None, "NoneType"), (self.rows, "Table")):
            message = f"dataset: a value of the type '{name}' is not a dataset of Ray. hint"
            with self.assertRaisesRegex(larder.RequestError, message):
                larder.ray.get_historical_features(dataset, world.FEATURES, store=self.store)
            with self.assertRaisesRegex(larder.RequestError, message):
                larder.ray.apply_derived(dataset, world.TIMED, store=self.store)


def with_objects(rows: pa.Table) -> pa.Table:
    from ray.data.extensions import ArrowPythonObjectArray

    return rows.append_column("objects", ArrowPythonObjectArray.from_objects([{1}] * len(rows)))


if __name__ == "__main__":
    unittest.main()
