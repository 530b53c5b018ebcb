"""Training sets: forms of entity rows and of results, options, errors, and interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from unittest import mock

import pandas
import polars
import pyarrow
import pyarrow.parquet

import larder
from world import CUSTOMER, FEATURES, PROGRAM, Home, Server

AT = datetime(2026, 11, 24, tzinfo=timezone.utc)
IDS = ["CUST_000124", "CUST_000123", "NOPE", "CUST_000125", "CUST_000123", None]
TIMES = [AT, AT, AT, AT, datetime(2020, 1, 1, tzinfo=timezone.utc), AT]


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Home()
        cls.home.configure("127.0.0.1:0")
        cls.store = larder.FeatureStore(cls.home.dir / "larder.yaml")
        cls.entities = pyarrow.table(
            {
                "label": pyarrow.array(range(len(IDS)), pyarrow.int8()),
                "customer_id": pyarrow.array(IDS),
                "event_timestamp": pyarrow.array(TIMES, pyarrow.timestamp("us", "UTC")),
            }
        )
        cls.path = cls.home.dir / "entities.parquet"
        pyarrow.parquet.write_table(cls.entities, cls.path)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.home.close()

    def job(self, entities: object = None, **options: object) -> larder.RetrievalJob:
        return self.store.get_historical_features(self.entities if entities is None else entities, FEATURES, **options)

    def test_rows_are_entity_rows_with_features(self) -> None:
        table = self.job().to_arrow()
        self.assertEqual(table.column_names, ["label", "customer_id", "event_timestamp", *CUSTOMER])
        self.assertEqual(table.select([0, 1, 2]).schema, self.entities.schema)
        self.assertTrue(table.select([0, 1, 2]).equals(self.entities))
        self.assertEqual(table["txn_count"].to_pylist()[1], 9007199254740993)
        # An unknown entity, a time before all rows, and a null key.
        for row in (2, 4, 5):
            self.assertEqual([table[name][row].as_py() for name in CUSTOMER], [None] * len(CUSTOMER))

    def test_set_equals_command(self) -> None:
        out = self.home.dir / "command.parquet"
        command = [PROGRAM, "training-set", "--entities", str(self.path), "--out", str(out)]
        for feature in FEATURES:
            command += ["--feature", feature]
        subprocess.run(command, cwd=self.home.dir, check=True, capture_output=True)
        ours = self.home.dir / "package.parquet"
        for entities in (self.entities, self.path):
            job = self.job(entities)
            job.to_parquet(ours)
            self.assertEqual(ours.read_bytes(), out.read_bytes())
            self.assertTrue(pyarrow.parquet.read_table(ours).equals(self.job().to_arrow()))
        # The manifest is the one of the command.
        expected = json.loads(out.with_name("command.parquet.manifest.json").read_text())
        self.assertEqual(job.manifest, expected)
        written = ours.with_name("package.parquet.manifest.json")
        self.assertEqual(json.loads(written.read_text()), expected)
        again = [PROGRAM, "training-set", "--from", str(written), "--out", str(out)]
        subprocess.run(again, cwd=self.home.dir, check=True, capture_output=True)
        self.assertEqual(ours.read_bytes(), out.read_bytes())

    def test_manifest_describes_set_in_memory(self) -> None:
        job = self.job(self.path, ttl="mark")
        manifest = job.manifest
        self.assertIsNone(manifest["output"])
        self.assertEqual((manifest["request"]["features"], manifest["request"]["ttl"]), (FEATURES, "mark"))
        self.assertEqual(list(manifest["inputs"]["entities"]["files"]), ["entities.parquet"])
        self.assertEqual(list(manifest["inputs"]["views"]), ["customer_stats"])
        self.assertEqual(manifest["report"]["rows"], job.report["rows"])
        frame = self.job().manifest
        self.assertEqual(frame["inputs"]["entities"], {"path": None, "files": {}})
        batches = self.job(self.path, ttl="mark")
        list(batches.to_batches())
        self.assertEqual(batches.manifest, manifest)

    def test_set_never_replaces_input(self) -> None:
        for path, why in (
            (self.path, "it is in the files of the entity rows"),
            (self.home.dir / "data/customer_stats.parquet", "it is in the files of feature view 'customer_stats'"),
        ):
            before = path.read_bytes()
            with self.assertRaisesRegex(larder.TrainingError, f"cannot write .*{path.name}: {why}. hint: write to another"):
                self.job(self.path).to_parquet(path)
            self.assertEqual(path.read_bytes(), before)
            self.assertEqual([name for name in os.listdir(path.parent) if name.startswith(".")], [])

    def test_changed_entity_rows_fail_run(self) -> None:
        path = self.home.dir / "changing.parquet"
        # More rows than the run computes ahead of its reader.
        pyarrow.parquet.write_table(pyarrow.concat_tables([self.entities] * 20_000), path)
        job = self.store.get_historical_features(path, FEATURES[:1])
        batches = job.to_batches()
        next(batches)
        pyarrow.parquet.write_table(self.entities, path)
        message = "inputs changed during the run: entity rows: file changing.parquet changed. hint: repeat the run"
        with self.assertRaisesRegex(larder.TrainingError, message):
            list(batches)

    def test_changed_feature_files_fail_run(self) -> None:
        home = Home()
        self.addCleanup(home.close)
        home.configure("127.0.0.1:0")
        out = home.dir / "out/set.parquet"
        out.parent.mkdir()

        def change() -> Iterator[pyarrow.RecordBatch]:
            # The run has already listed the feature files.
            os.utime(home.dir / "data/customer_stats.parquet", (0, 0))
            yield from self.entities.to_batches()

        reader = pyarrow.RecordBatchReader.from_batches(self.entities.schema, change())
        job = larder.FeatureStore(home.dir / "larder.yaml").get_historical_features(reader, FEATURES)
        message = "feature view 'customer_stats': its files changed while they were read. hint: repeat the run"
        with self.assertRaisesRegex(larder.TrainingError, message):
            job.to_parquet(out)
        self.assertEqual(list(out.parent.iterdir()), [])

    def test_every_form_of_entity_rows_gives_same_features(self) -> None:
        expected = self.job().to_arrow().select(CUSTOMER)
        for entities in (
            self.entities.to_pandas(),
            polars.from_arrow(self.entities),
            self.entities.to_reader(max_chunksize=2),
            self.path,
            str(self.path),
        ):
            self.assertTrue(self.job(entities).to_arrow().select(CUSTOMER).equals(expected), type(entities))

    def test_every_form_of_result_has_same_rows(self) -> None:
        expected = self.job().to_arrow()
        self.assertTrue(pyarrow.Table.from_batches(self.job().to_batches()).equals(expected))
        self.assertTrue(pyarrow.table(self.job()).equals(expected))
        self.assertEqual(pyarrow.schema(self.job()), expected.schema)
        self.assertTrue(self.job().to_polars().equals(polars.from_arrow(expected)))
        frame = self.job().to_df()
        self.assertEqual(list(frame.columns), expected.column_names)
        self.assertEqual([str(frame[name].dtype) for name in ("label", "txn_count", "small_int")], ["int8", "Int64", "Int32"])
        self.assertEqual(frame["txn_count"][1], 9007199254740993)
        # A job keeps the rows after the first call.
        job = self.job(self.entities.to_reader())
        self.assertTrue(job.to_arrow().equals(job.to_arrow()))
        self.assertTrue(pyarrow.Table.from_batches(job.to_batches()).equals(expected))

    def test_index_of_pandas_frame_is_kept(self) -> None:
        frame = self.entities.to_pandas().set_index(pandas.Index([f"row{row}" for row in range(len(IDS))], name="i"))
        self.assertEqual(list(self.job(frame).to_df().index), list(frame.index))

    def test_report_counts_rows(self) -> None:
        report = self.job().report
        view = report["views"][0]
        self.assertEqual((report["rows"], view["view"], view["matched"], view["no_key"]), (6, "customer_stats", 3, 1))
        self.assertEqual(view["not_found"], 2)
        job = self.job()
        list(job.to_batches())
        self.assertEqual(job.report, report)

    def test_options_are_applied(self) -> None:
        features = ["customer_stats:txn_count", "expired_stats:stale_value"]
        names = ["txn_count", "stale_value"]

        def columns(**options: object) -> list[str]:
            return self.store.get_historical_features(self.entities, features, **options).to_arrow().column_names[3:]

        self.assertEqual(columns(), names)
        self.assertEqual(columns(full_feature_names=True), [feature.replace(":", "__") for feature in features])
        self.assertEqual(columns(ttl="mark"), [one for name in names for one in (name, f"{name}__status")])
        self.assertEqual(columns(event_timestamps=True), [one for name in names for one in (name, f"{name}__event_timestamp")])
        expired = self.store.get_historical_features(self.entities, features).to_arrow()["stale_value"]
        ignored = self.store.get_historical_features(self.entities, features, ttl="ignore").to_arrow()["stale_value"]
        self.assertGreater(expired.null_count, ignored.null_count)
        renamed = self.entities.rename_columns(["label", "customer_id", "at"])
        found = self.job(renamed, timestamp_column="at", memory="16MiB", threads=1).to_arrow()
        self.assertTrue(found.select(CUSTOMER).equals(self.job().to_arrow().select(CUSTOMER)))
        with self.assertRaisesRegex(larder.TrainingError, "no complete key for feature view.*or do not use strict=True$"):
            self.job(strict=True).to_arrow()

    def test_errors_name_thing_and_way_out(self) -> None:
        get = self.store.get_historical_features
        text = self.entities.set_column(2, "event_timestamp", pyarrow.array(["2026-11-24"] * len(IDS)))
        for call, error, message in (
            (
                lambda: self.job(self.entities.drop_columns(["event_timestamp"])),
                larder.TrainingError,
                "no column 'event_timestamp' .*columns are 'label', 'customer_id'. hint: name .* with timestamp_column$",
            ),
            (
                lambda: self.job(text),
                larder.TrainingError,
                "column 'event_timestamp' of the entity rows: the column is .*. hint: .*pandas.to_datetime or polars' str",
            ),
            (lambda: self.job(polars.from_arrow(self.entities).lazy()), larder.RequestError, r"LazyFrame.*hint: .*collect\(\)"),
            (lambda: get(self.entities, ["nope:f"]), larder.TrainingError, "nope"),
            (lambda: get(self.entities, feature_service="nope"), larder.TrainingError, "nope"),
            (lambda: self.job(self.entities.append_column("segment", pyarrow.nulls(6))), larder.TrainingError, "'segment'.*hint"),
            (lambda: self.job("/nowhere.parquet"), larder.TrainingError, "/nowhere.parquet: No such file"),
            (
                lambda: self.job(polars.Series("customer_id", ["a"])),
                larder.RequestError,
                "cannot read Arrow data from a value of the type 'Series': .*hint: use a data frame",
            ),
            (lambda: self.job(7), larder.RequestError, "int.* is neither a path nor an object with Arrow data. hint"),
            (lambda: self.job(known_at="now"), larder.RequestError, "known_at: 'now' is not one of 'event', 'created'"),
            (lambda: self.job(ttl="drop"), larder.RequestError, "ttl: 'drop' is not one of 'null', 'mark', 'ignore'"),
            (lambda: self.job(memory="much"), larder.RequestError, "memory: much: not a size such as"),
            (lambda: self.job(threads=0), larder.RequestError, "threads: 0: must be a number from 1 to 1024"),
            (lambda: self.job(threads=1025), larder.RequestError, "threads: 1025: must be a number from 1 to 1024"),
            (lambda: self.job(memory=1), larder.RequestError, "memory: 1: must be at least 16 MiB"),
            (lambda: get(self.entities), larder.RequestError, "no features are given. hint"),
            (
                lambda: larder.FeatureStore("/nowhere/larder.yaml"),
                larder.ConfigError,
                "cannot read /nowhere/larder.yaml: .*. hint: set config to the path",
            ),
            (lambda: larder.FeatureStore(self.home.dir), larder.ConfigError, "hint: set config to .*/larder.yaml$"),
        ):
            with self.assertRaisesRegex(error, message):
                call()
        with self.assertRaisesRegex(larder.ConfigError, "the store has no definitions. hint"):
            larder.FeatureStore(url="http://127.0.0.1:1").get_historical_features(self.entities, FEATURES)

    def test_failed_run_leaves_no_file(self) -> None:
        def fail() -> Iterator[pyarrow.RecordBatch]:
            yield from self.entities.to_batches()
            raise ValueError("the reader failed")

        reader = pyarrow.RecordBatchReader.from_batches(self.entities.schema, fail())
        out = self.home.dir / "out/failed.parquet"
        out.parent.mkdir()
        with self.assertRaisesRegex(larder.TrainingError, "entity rows: .*the reader failed"):
            self.job(reader).to_parquet(out)
        self.assertEqual(list(out.parent.iterdir()), [])
        with self.assertRaisesRegex(larder.TrainingError, "cannot write /nowhere/out.parquet"):
            self.job().to_parquet("/nowhere/out.parquet")

    def test_interrupt_stops_run(self) -> None:
        stop = threading.Event()

        def endless() -> Iterator[pyarrow.RecordBatch]:
            while not stop.is_set():
                yield self.entities.to_batches()[0]

        reader = pyarrow.RecordBatchReader.from_batches(self.entities.schema, endless())
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        self.addCleanup(timer.join)
        self.addCleanup(stop.set)
        with self.assertRaises(KeyboardInterrupt):
            self.job(reader).to_arrow()

    def test_other_threads_run_during_join(self) -> None:
        def slow() -> Iterator[pyarrow.RecordBatch]:
            for batch in self.entities.to_batches() * 3:
                time.sleep(0.1)
                yield batch

        steps = 0
        job = self.job(pyarrow.RecordBatchReader.from_batches(self.entities.schema, slow()))
        thread = threading.Thread(target=job.to_arrow)
        thread.start()
        while thread.is_alive():
            steps += 1
            time.sleep(0.001)
        self.assertGreater(steps, 10)

    def test_feast_repository_is_read(self) -> None:
        with self.assertRaisesRegex(larder.ConfigError, "feature_store.yaml"):
            larder.FeatureStore(feast_repo=self.home.dir)

    def test_definitions_are_listed_without_server(self) -> None:
        views = {view.name: view for view in self.store.list_feature_views()}
        self.assertEqual([feature.name for feature in views["customer_stats"].features], CUSTOMER)
        self.assertIn("fs_basic", [service.name for service in self.store.list_feature_services()])


class Together(unittest.TestCase):
    """A store with a configuration uses the server of the configuration."""

    def setUp(self) -> None:
        self.home = Home(server="  unix_socket: larder.sock\n")
        self.addCleanup(self.home.close)
        self.server = Server(self.home)
        self.addCleanup(self.server.stop)

    def test_online_values_equal_training_row(self) -> None:
        store = larder.FeatureStore(self.home.dir / "larder.yaml")
        now = datetime.now(timezone.utc) + timedelta(days=1)
        ids = ["CUST_000123", "CUST_000124", "CUST_000125"]
        entities = polars.DataFrame({"customer_id": ids, "event_timestamp": [now] * len(ids)})
        row = store.get_historical_features(entities, FEATURES).to_arrow()
        online = store.get_online_features(FEATURES, entities={"customer_id": ids}, columnar=True).to_arrow()
        for name in CUSTOMER:
            self.assertEqual(row[name].to_pylist(), online[name].to_pylist(), name)
            self.assertEqual(row[name].type, online[name].type)

    def test_module_functions_use_one_store(self) -> None:
        config = str(self.home.dir / "larder.yaml")
        with mock.patch("larder._default._store", None), mock.patch.dict(os.environ, {"LARDER_CONFIG": config}):
            client = larder.get_feature_store_client()
            self.assertIs(larder.get_feature_store_client(), client)
            features = client.get_feature_service_features("fs_basic")
            one = larder.get_features_for_prediction(customer_id="CUST_000123", driver_id=1001)
            self.assertEqual(list(one), ["customer_id", "driver_id", *(feature.split(":")[1] for feature in features)])
            self.assertEqual(one["customer_id"], "CUST_000123")
            several = larder.get_features_for_prediction(customer_id=["CUST_000123"] * 2, driver_id=[1001] * 2)
            self.assertEqual(several, {name: [value] * 2 for name, value in one.items()})
            entities = pandas.DataFrame({"customer_id": ["CUST_000123"], "driver_id": [1001], "event_timestamp": [AT]})
            row = larder.get_training_features(entities, feature_service="fs_basic").to_df()
            self.assertEqual(len(row), 1)
            with self.assertRaisesRegex(larder.RequestError, "no inputs are given. hint"):
                larder.get_features_for_prediction()

    def test_package_prints_help(self) -> None:
        printed = subprocess.run([sys.executable, "-m", "larder"], capture_output=True, text=True, check=True).stdout
        self.assertIn("get_historical_features", printed)
        printed = subprocess.run(
            [sys.executable, "-m", "larder", "--version"], capture_output=True, text=True, check=True
        ).stdout
        self.assertEqual(printed, f"larder {larder.__version__}\n")


if __name__ == "__main__":
    unittest.main()
