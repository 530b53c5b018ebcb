"""Tests that derived features of a frame equal those of the join, for columns of all types."""

from __future__ import annotations

import math
import os
import shutil
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars
import pyarrow
import pyarrow.parquet

import larder
from world import Home

PLUGINS = Path(os.environ["LARDER_TEST_PLUGINS"])
AT = datetime(2026, 11, 24, tzinfo=timezone.utc)
NESTED = ("Map", "Array(Map)", "Struct", "Array(Struct)", "Array(Array)")
# Each of the derived views returns the JSON text of one nested feature.
DEFINITIONS = """
feature_views:
  - name: nested
    entities: [driver]
    source: {path: data/nested.parquet, timestamp_field: event_timestamp}
    features:
      - {name: numbers, type: Array(Float64)}
"""
ECHO = """
  - name: echo_{number}
    plugin: echo
    inputs:
      - {{name: text, from: "nested:n{number}"}}
      - {{name: numbers, from: "nested:numbers"}}
      - {{name: items, from: "nested:numbers"}}
    features: [{{name: text, type: String}}, {{name: sum, type: Float64}}]
"""


def write_nested(path: Path) -> None:
    maps = pyarrow.map_(pyarrow.string(), pyarrow.float64())
    structs = pyarrow.struct([("a", pyarrow.int64()), ("at", pyarrow.timestamp("us", "UTC")), ("l", pyarrow.list_(pyarrow.string()))])
    one = {"a": 2**53 + 1, "at": AT, "l": ["x", "é"]}
    columns = {
        "driver_id": pyarrow.array([1001, 1002, 1003]),
        "event_timestamp": pyarrow.array([AT] * 3, pyarrow.timestamp("us", "UTC")),
        "numbers": pyarrow.array([[1.5, float("nan"), -0.0], [], None], pyarrow.list_(pyarrow.float64())),
        "n0": pyarrow.array([[("a", 0.1), ("b", float("inf"))], [], None], maps),
        "n1": pyarrow.array([[[("a", 1.0)], []], [], None], pyarrow.list_(maps)),
        "n2": pyarrow.array([one, {"a": None, "at": None, "l": []}, None], structs),
        "n3": pyarrow.array([[one, one], [], None], pyarrow.list_(structs)),
        "n4": pyarrow.array([[[1, 2], [3]], [], None], pyarrow.list_(pyarrow.list_(pyarrow.int64()))),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


class Derived(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Home()
        cls.home.configure("127.0.0.1:0")
        shutil.copytree(PLUGINS, cls.home.dir / "plugins")
        write_nested(cls.home.dir / "data/nested.parquet")
        nested = "".join(f"      - {{name: n{number}, type: {of}}}\n" for number, of in enumerate(NESTED))
        echoes = "".join(ECHO.format(number=number) for number in range(len(NESTED)))
        (cls.home.dir / "features/nested.yaml").write_text(DEFINITIONS + nested + "derived_views:" + echoes)
        cls.store = larder.FeatureStore(cls.home.dir / "larder.yaml")
        later = AT + timedelta(days=1)
        cls.rows = pyarrow.table(
            {
                "driver_id": [1001, 1002, 9999, None, 1003],
                "event_timestamp": pyarrow.array([later, later, later, later, None], pyarrow.timestamp("us", "UTC")),
                "amount": [2.0, None, 3.0, 0.5, 1.0],
                "hour": [1, 2, None, 4, 5],
            }
        )

    @classmethod
    def tearDownClass(cls) -> None:
        cls.home.close()

    def compare(self, stored: list[str], derived: list[str], full: bool = False) -> pyarrow.Table:
        get = self.store.get_historical_features
        frame = get(self.rows, stored, full).to_arrow()
        expected = get(self.rows, stored + derived, full).to_arrow()
        found = self.store.apply_derived(frame, derived, full).to_arrow()
        self.assertEqual(found.schema, expected.schema)
        # As text, NaN equals NaN.
        self.assertEqual(repr(found.to_pylist()), repr(expected.to_pylist()))
        return found

    def test_features_equal_those_of_join(self) -> None:
        derived = ["odfv_python:conv_x_amount", "odfv_python:label", "odfv_probe_py:seen_keys"]
        for full in (False, True):
            found = self.compare(["driver_stats:avg_daily_trips", "driver_stats:conv_rate"], derived, full)
            keys = found["odfv_probe_py__seen_keys" if full else "seen_keys"].to_pylist()
            self.assertTrue(keys[0].startswith("driver_id:1001,amount:2.0,hour:1,avg_daily_trips:"), keys)
            self.assertTrue(keys[3].startswith("driver_id:null,"), keys)
            self.assertIsNone(keys[4])

    def test_nested_features_are_inputs(self) -> None:
        for number, of in enumerate(NESTED):
            found = self.compare([f"nested:n{number}", "nested:numbers"], [f"echo_{number}:text"])
            self.assertEqual(found["text"].null_count < len(self.rows), True, of)

    def test_service_and_forms_of_frame(self) -> None:
        frame = self.store.get_historical_features(self.rows, ["driver_stats:conv_rate"]).to_arrow()
        expected = self.store.get_historical_features(self.rows, feature_service="fs_odfv").to_arrow()
        path = self.home.dir / "frame.parquet"
        pyarrow.parquet.write_table(frame, path)
        # Without the join key: the plugin does not read it.
        for form in (frame, frame.drop_columns(["driver_id"]), polars.from_arrow(frame), frame.to_reader(), path):
            found = self.store.apply_derived(form, feature_service="fs_odfv").to_arrow()
            for name in ("conv_x_amount", "label"):
                self.assertEqual(found[name].to_pylist(), expected[name].to_pylist())

    def test_values_of_other_types_are_converted_or_named(self) -> None:
        frame = self.store.get_historical_features(self.rows, ["driver_stats:conv_rate"]).to_arrow()
        rates = frame["conv_rate"]
        index = frame.column_names.index("conv_rate")

        def label(column: pyarrow.ChunkedArray, name: str = "conv_rate") -> list[str]:
            changed = frame.set_column(index, name, column)
            return self.store.apply_derived(changed, ["odfv_python:conv_x_amount"]).to_arrow()["conv_x_amount"].to_pylist()

        self.assertEqual(label(rates.dictionary_encode()), label(rates))
        self.assertEqual(label(pyarrow.chunked_array([pyarrow.nulls(5)])), [None] * 5)
        for column, words in (
            (pyarrow.chunked_array([pyarrow.array([[1.0]] * 5)]), "'conv_rate' .*cannot be feature 'conv_rate' of view 'driver_stats'"),
            (pyarrow.chunked_array([pyarrow.array(["0.5", "x", "1", "2", "3"])]), "entity row 1, column 'conv_rate': 'x' is not Float64"),
        ):
            with self.assertRaisesRegex(larder.TrainingError, words):
                label(column)

    def test_request_input_may_be_nan(self) -> None:
        index = self.rows.column_names.index("amount")
        rows = self.rows.slice(0, 2).set_column(index, "amount", pyarrow.array([float("nan"), None]))
        found = self.store.get_historical_features(rows, ["odfv_python:conv_x_amount"]).to_arrow()["conv_x_amount"].to_pylist()
        self.assertTrue(math.isnan(found[0]), found)
        self.assertIsNone(found[1])

    def test_missing_columns_are_named(self) -> None:
        frame = self.store.get_historical_features(self.rows, ["driver_stats:avg_daily_trips", "driver_stats:conv_rate"]).to_arrow()
        seen = ["odfv_probe_py:seen_keys"]
        for column, features, full, words in (
            ("driver_id", seen, False, "no column 'driver_id'. hint: add the join key"),
            ("amount", seen, False, "amount"),
            ("conv_rate", seen, False, "no column 'conv_rate', which a derived view reads as feature 'driver_stats:conv_rate'"),
            ("driver_id", ["odfv_python:label"], True, "no column 'driver_stats__conv_rate'.*hint: join the feature first"),
            ("event_timestamp", seen, False, "no column 'event_timestamp'"),
            ("hour", ["driver_stats:conv_rate"], False, "no derived features. hint: request features of derived views"),
            ("driver_id", ["odfv_pandas:is_night"], False, "needs plugin 'odfv_pandas', which is not loaded. hint"),
        ):
            with self.assertRaisesRegex(larder.TrainingError, words):
                self.store.apply_derived(frame.drop_columns([column]), features, full)
        with self.assertRaisesRegex(larder.TrainingError, "column 'seen_keys' .*has the name of a requested feature"):
            self.store.apply_derived(frame.append_column("seen_keys", frame["hour"]), seen)

    def test_rows_without_time_are_errors_if_strict(self) -> None:
        frame = self.store.get_historical_features(self.rows, ["driver_stats:conv_rate"]).to_arrow()
        with self.assertRaisesRegex(larder.TrainingError, "nulls in the time column"):
            self.store.apply_derived(frame, ["odfv_python:label"], strict=True).to_arrow()

    def test_view_that_fails_requests_fails_frame(self) -> None:
        frame = self.store.get_historical_features(self.rows, ["driver_stats:avg_daily_trips"]).to_arrow()
        with self.assertRaisesRegex(larder.TrainingError, "odfv_singleton"):
            self.store.apply_derived(frame, ["odfv_singleton:trips_plus_one"]).to_arrow()


if __name__ == "__main__":
    unittest.main()
