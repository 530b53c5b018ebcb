"""The tests of a way to distribute a training set. Each engine runs all of them."""

from __future__ import annotations

import os
import shutil
import unittest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import world

import larder


class Forms(unittest.TestCase):
    """Subclasses have the methods that need an engine."""

    dir: Path
    partitions = 3

    @classmethod
    def setUpClass(cls) -> None:
        if cls is Forms:
            raise unittest.SkipTest("has no engine")
        # Removed at the end of the process: tasks of a failed run may still write compiled plugins.
        cls.dir = world.directory()
        cls.config = world.project(cls.dir / "project")
        cls.store = larder.FeatureStore(cls.config)
        cls.rows = world.entity_rows()

    def join(self, rows: pa.Table, partitions: int | None = None, **options: Any) -> pa.Table:
        """Builds a training set. The entity rows are in `partitions` partitions."""
        raise NotImplementedError

    def derive(self, rows: pa.Table, **options: Any) -> pa.Table:
        """Computes derived features."""
        raise NotImplementedError

    def message(self, error: BaseException) -> str:
        return str(error)

    def assert_equal(self, store: larder.FeatureStore, rows: pa.Table, **options: Any) -> pa.Table:
        expected = store.get_historical_features(rows, **options).to_arrow()
        found = self.join(rows, store=store, **options)
        self.assertEqual(found.column_names, expected.column_names)
        for name in expected.column_names:
            of = [name] if name == "row" else ["row", name]
            self.assertEqual(world.digest(found.select(of)), world.digest(expected.select(of)), name)
        self.assertEqual(world.digest(found), world.digest(expected))
        return expected

    def test_random_views_equal_one_machine(self) -> None:
        for seed, options in ((1, {"ttl": "mark", "event_timestamps": True}), (2, {"known_at": "created"})):
            config, rows = world.random_views(self.dir / f"random{seed}", seed)
            store = larder.FeatureStore(config)
            self.assert_equal(store, rows, feature_service="all", full_feature_names=True, **options)

    def test_churn_demo_equals_one_machine(self) -> None:
        store = larder.FeatureStore(world.churn())
        rows = world.churn_rows()
        service = "churn_prediction_derived"
        expected = self.assert_equal(store, rows, feature_service=service)
        risk = expected["contract_risk"]
        self.assertTrue(0 < risk.null_count < len(risk))
        # The derived features of the joined stored features are the same.
        computed = [f"customer_derived_features:{name}" for name in ("tickets_per_month", "contract_risk")]
        stored = [
            *(f"customer_behavior_features:{name}" for name in ("tenure_months", "monthly_charges", "total_charges")),
            "customer_behavior_features:support_tickets_30d",
            "customer_contract_features:contract_type",
        ]
        joined = store.get_historical_features(rows, stored).to_arrow()
        whole = store.get_historical_features(rows, stored + computed).to_arrow()
        self.assertEqual(world.digest(self.derive(joined, store=store, features=computed)), world.digest(whole))

    def test_columns_of_caller_and_times_of_rows_are_kept(self) -> None:
        options = {"features": world.FEATURES + world.TIMED, "ttl": "ignore"}
        expected = self.assert_equal(self.store, self.rows, **options)
        texts, times = expected["text"], expected["event_timestamp"].cast(pa.int64()).cast(pa.string())
        computed = pc.is_valid(texts)
        self.assertGreater(pc.sum(computed).as_py(), 50)
        self.assertEqual(texts.filter(computed), times.filter(computed))

    def test_derived_features_equal_those_of_join(self) -> None:
        for names in (False, True):
            options = {"full_feature_names": names, "ttl": "ignore"}
            stored = self.store.get_historical_features(self.rows, world.FEATURES, **options).to_arrow()
            whole = self.store.get_historical_features(self.rows, world.FEATURES + world.TIMED, **options).to_arrow()
            found = self.derive(stored, store=self.store, features=world.TIMED, full_feature_names=names)
            self.assertEqual(world.digest(found), world.digest(whole))

    def test_more_partitions_than_rows(self) -> None:
        rows = self.rows.slice(0, 2)
        expected = self.store.get_historical_features(rows, world.FEATURES).to_arrow()
        found = self.join(rows, partitions=5, store=self.store, features=world.FEATURES)
        self.assertEqual(world.digest(found), world.digest(expected))

    def test_memory_below_rows_gives_same_set(self) -> None:
        # The strings of the rows take more than the minimum of the memory.
        rows = pa.concat_tables([self.rows] * 5)
        rows = rows.set_column(0, "row", pa.array(range(len(rows)), pa.int32()))
        rows = rows.append_column("long", pa.array(["x" * 10_000] * len(rows)))
        self.assert_equal(self.store, rows, features=world.FEATURES, memory="16MiB")

    def test_invalid_arguments_fail_at_once(self) -> None:
        for rows, options, error, message in (
            (self.rows.drop_columns(["event_timestamp"]), {}, larder.TrainingError, "no column 'event_timestamp'"),
            (self.rows.drop_columns(["account"]), {}, larder.TrainingError, "account"),
            (self.rows, {"features": ["pairs:nope"]}, larder.TrainingError, "nope"),
            (self.rows, {"features": None}, larder.RequestError, "no features are given. hint"),
            (self.rows, {"ttl": "drop"}, larder.RequestError, "ttl: 'drop' is not one of"),
            (self.rows, {"memory": "1B"}, larder.RequestError, "memory: 1B: must be at least"),
            (self.rows.append_column("x", pa.nulls(len(self.rows), pa.int8())), {}, larder.TrainingError, "column 'x'.*hint"),
            (self.rows.append_column("__larder_a", self.rows["row"]), {}, larder.RequestError, "'__larder_a': names .* hint"),
            (self.rows, {"worker_config": ""}, larder.RequestError, "worker_config: '' is not a path. hint"),
            (self.rows, {"worker_config": 1}, larder.RequestError, "worker_config: 1 is not a path. hint"),
            (self.rows, {"store": larder.FeatureStore(url="http://127.0.0.1:1")}, larder.ConfigError, "no definitions. hint"),
        ):
            arguments = {"store": self.store, "features": world.FEATURES, **options}
            with self.assertRaisesRegex(error, message):
                self.join(rows, **arguments)

    def test_missing_input_of_derived_feature_fails_at_once(self) -> None:
        stored = self.store.get_historical_features(self.rows, world.FEATURES).to_arrow()
        with self.assertRaisesRegex(larder.TrainingError, "no column 'x', which a derived view reads as feature 'pairs:x'"):
            self.derive(stored.drop_columns(["x"]), store=self.store, features=world.TIMED)
        with self.assertRaisesRegex(larder.TrainingError, "the request has no derived features. hint"):
            self.derive(stored, store=self.store, features=["pairs:large"])

    def assert_fails(self, *words: str, **options: Any) -> None:
        with self.assertRaises(Exception) as raised:
            self.join(self.rows, **{"store": self.store, "features": world.FEATURES, **options})
        message = self.message(raised.exception)
        for word in words:
            self.assertIn(word, message)

    def test_errors_of_tasks_have_messages(self) -> None:
        self.assert_fails("entity rows have nulls in the time column 'event_timestamp'. hint", strict=True)
        self.assert_fails("derived view 'counted': plugin 'hostile' returns different values", features=["counted:y"])

    def test_workers_without_files_are_named(self) -> None:
        missing = ("machine '", "/nowhere/larder.yaml does not exist. hint: copy the configuration, the definitions and")
        self.assert_fails(*missing, worker_config="/nowhere/larder.yaml")
        # Other definitions, another plugin, other files, and no plugin.
        changes = {
            "feature view 'pairs': the definition differs": lambda path: replace(path / "features/all.yaml", "ttl: 10s", "ttl: 11s"),
            "plugin 'hostile': component": lambda path: shutil.copy(world.CHURN, path / "plugins/hostile.wasm"),
            "feature view 'rates': file rates.parquet changed": lambda path: os.utime(path / "rates.parquet", (1, 1)),
            "hint: put hostile.wasm into 'plugins: dir'": lambda path: (path / "plugins/hostile.wasm").unlink(),
        }
        for number, (word, change) in enumerate(changes.items()):
            copy = self.dir / f"worker{number}"
            shutil.copytree(self.config.parent, copy)
            change(copy)
            features = world.FEATURES + world.TIMED
            if "component" in word:
                # The churn plugin has other inputs, so it cannot be the plugin of the view.
                word = "machine '"
            self.assert_fails("machine '", word, features=features, worker_config=copy / "larder.yaml")


def replace(path: Path, text: str, other: str) -> None:
    path.write_text(path.read_text().replace(text, other))
