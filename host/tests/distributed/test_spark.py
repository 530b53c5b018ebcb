"""Training sets on a local Spark session."""

from __future__ import annotations

import os
import sys
import unittest
from typing import Any

import pyarrow as pa
import world
from forms import Forms
from pyspark.sql import SparkSession

import larder
import larder.spark

os.environ["PYSPARK_PYTHON"] = sys.executable
# Entity rows reach Python in batches of few rows. The session's time zone has daylight saving time.
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.sql.session.timeZone": "America/New_York",
    # `createDataFrame` keeps times without a zone as they are.
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
    "spark.log.level": "OFF",
}


def session() -> SparkSession:
    builder = SparkSession.builder.master("local[2]").appName("larder")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def tearDownModule() -> None:
    session().stop()


class Scan(Forms):
    method = "scan"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.spark = session()

    def join(self, rows: pa.Table, partitions: int | None = None, **options: Any) -> pa.Table:
        frame = self.spark.createDataFrame(rows).repartition(partitions or self.partitions)
        found = larder.spark.get_historical_features(frame, method=self.method, **options)
        # The columns of the caller keep their types in Spark.
        self.assertEqual(found.schema.fields[: len(frame.schema.fields)], frame.schema.fields)
        return found.toArrow()

    def derive(self, rows: pa.Table, **options: Any) -> pa.Table:
        frame = self.spark.createDataFrame(rows).repartition(self.partitions)
        return larder.spark.apply_derived(frame, **options).toArrow()


    def test_columns_of_caller_have_their_names(self) -> None:
        frame = self.spark.createDataFrame(self.rows.select(["Row", "row", "left", "a`b.c", "account", "event_timestamp"]))
        found = larder.spark.get_historical_features(frame, ["accounts:x2"], store=self.store, method=self.method)
        self.assertEqual(found.columns, [*frame.columns, "x2"])
        found = larder.spark.apply_derived(frame.withColumn("x2", frame["account"] * 0.5), ["timed_account:y"], store=self.store)
        self.assertEqual(found.columns, [*frame.columns, "x2", "y"])

    def test_large_types_of_arrow(self) -> None:
        self.spark.conf.set("spark.sql.execution.arrow.useLargeVarTypes", "true")
        self.addCleanup(self.spark.conf.unset, "spark.sql.execution.arrow.useLargeVarTypes")
        expected = self.store.get_historical_features(self.rows, world.FEATURES + world.TIMED).to_arrow()
        found = self.join(self.rows, store=self.store, features=world.FEATURES + world.TIMED)
        self.assertIn(pa.large_string(), found.schema.types)
        self.assertEqual(world.digest(found.cast(expected.schema)), world.digest(expected))

    def test_row_in_error_counts_rows_of_task(self) -> None:
        # Spark passes 64 rows at a time.
        keys = pa.array([b"1"] * 100 + [b"\xff"], pa.binary())
        rows = self.rows.slice(0, 101).set_column(1, "left", keys)
        frame = self.spark.createDataFrame(rows).coalesce(1)
        with self.assertRaisesRegex(Exception, "entity row 100, column 'left': the bytes are not UTF-8"):
            larder.spark.get_historical_features(frame, ["pairs:x"], store=self.store, method=self.method).collect()

    def test_frames_of_other_packages_are_errors(self) -> None:
        for frame, name in ((None, "NoneType"), (self.rows, "Table"), (self.rows.select(["row"]).to_pandas(), "DataFrame")):
            message = f"spark_df: a value of the type '{name}' is not a data frame of Spark. hint"
            with self.assertRaisesRegex(larder.RequestError, message):
                larder.spark.get_historical_features(frame, world.FEATURES, store=self.store, method=self.method)
            with self.assertRaisesRegex(larder.RequestError, message):
                larder.spark.apply_derived(frame, world.TIMED, store=self.store)


class Shuffle(Scan):
    method = "shuffle"

    def join(self, rows: pa.Table, partitions: int | None = None, **options: Any) -> pa.Table:
        return super().join(rows, partitions, **{"buckets": 3, **options})

    def test_number_of_buckets_does_not_matter(self) -> None:
        expected = self.store.get_historical_features(self.rows, world.FEATURES).to_arrow()
        for buckets in (None, 1, 7):
            found = self.join(self.rows, store=self.store, features=world.FEATURES, buckets=buckets)
            self.assertEqual(world.digest(found), world.digest(expected), buckets)

    def test_invalid_form_is_an_error(self) -> None:
        for options, message in (
            ({"method": "sort"}, "method: 'sort' is not one of"),
            ({"buckets": 0}, "buckets: 0 is not between"),
            ({"buckets": 2**31}, "buckets: 2147483648 is not between"),
            ({"buckets": 2.5}, "buckets: 2.5 is not an integer"),
            ({"buckets": True}, "buckets: True is not an integer"),
            ({"buckets": "3"}, "buckets: '3' is not an integer"),
        ):
            with self.assertRaisesRegex(larder.RequestError, message):
                larder.spark.get_historical_features(None, world.FEATURES, store=self.store, **options)


class Frames(unittest.TestCase):
    def test_package_imports_no_engine(self) -> None:
        code = "import sys, larder; assert not {'pyspark', 'ray', 'pyarrow', 'pandas'} & sys.modules.keys()"
        self.assertEqual(os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]), 0)


if __name__ == "__main__":
    unittest.main()
