"""The types of columns: they follow from the definitions, so they are the same in training sets and lookups."""

from __future__ import annotations

import json
import unittest
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet

import larder
from world import Home, Server

# Python writes it in lower case.
UUID = "00000000-0000-0000-0000-00000000000A"
AT = datetime(2026, 11, 24, tzinfo=timezone.utc)
# The types of features, with a value in the file and its type in a data frame.
FEATURES = {
    "an_int64": ("Int64", pyarrow.int64(), 9007199254740993, "Int64"),
    "an_int32": ("Int32", pyarrow.int32(), 7, "Int32"),
    "a_bool": ("Bool", pyarrow.bool_(), True, "boolean"),
    "a_float32": ("Float32", pyarrow.float32(), 0.1, "float32"),
    "a_float64": ("Float64", pyarrow.float64(), 0.1, "float64"),
    "a_text": ("String", pyarrow.string(), "text", "object"),
    "some_bytes": ("Bytes", pyarrow.binary(), b"\xff", "object"),
    "a_time": ("UnixTimestamp", pyarrow.timestamp("us", "UTC"), AT, "datetime64[us, UTC]"),
    "a_uuid": ("Uuid", pyarrow.string(), UUID, "object"),
    "some_uuids": ("Array(Uuid)", pyarrow.list_(pyarrow.string()), [UUID], "object"),
    "a_decimal": ("Decimal", pyarrow.string(), "1.50e3", "object"),
    "a_document": ("Json", pyarrow.string(), '{"a":[1,null]}', "object"),
    "a_map": ("Map", pyarrow.map_(pyarrow.string(), pyarrow.int64()), [("a", 1), ("b", 2)], "object"),
    "a_struct": ("Struct", pyarrow.struct({"a": pyarrow.float64(), "b": pyarrow.string()}), {"a": 1e16, "b": "ö"}, "object"),
    "a_list": ("Array(Int64)", pyarrow.list_(pyarrow.int64()), [1, 2], "object"),
    "some_times": ("Array(UnixTimestamp)", pyarrow.list_(pyarrow.timestamp("us", "UTC")), [AT], "object"),
    "a_set": ("Set(String)", pyarrow.list_(pyarrow.string()), ["b", "a"], "object"),
}
NAMES = list(FEATURES)
REFERENCES = [f"typed_stats:{name}" for name in NAMES]
# Rows with all values, with nulls, and without a row.
KEYS = {"customer_id": ["full", "null", "none"], "driver_id": [1, 1, 1]}
DEFINITIONS = """
entities:
  - {name: customer, join_key: customer_id, type: String}
  - {name: driver, join_key: driver_id, type: Int64}
feature_views:
  - name: typed_stats
    entities: [customer, driver]
    source: {path: data/typed.parquet}
    features:
"""


class Types(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        lines = [f"      - {{name: {name}, type: {of[0]}}}" for name, of in FEATURES.items()]
        cls.home = Home(DEFINITIONS + "\n".join(lines))
        (cls.home.dir / "data").mkdir()
        columns = {name: pyarrow.array([value, None], arrow) for name, (_, arrow, value, _) in FEATURES.items()}
        times = pyarrow.array([AT, AT], pyarrow.timestamp("us", "UTC"))
        keys = {"customer_id": ["full", "null"], "driver_id": [1, 1], "event_timestamp": times}
        pyarrow.parquet.write_table(pyarrow.table({**keys, **columns}), cls.home.dir / "data/typed.parquet")
        cls.server = Server(cls.home)
        cls.store = larder.FeatureStore(cls.home.dir / "larder.yaml", url=cls.server.url)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()
        cls.home.close()

    def online(self, rows: slice = slice(None), columnar: bool = False) -> larder.OnlineResponse:
        entities = {name: values[rows] for name, values in KEYS.items()}
        return self.store.get_online_features(REFERENCES, entities=entities, columnar=columnar)

    def training(self, rows: slice = slice(None)) -> larder.RetrievalJob:
        at = [AT + timedelta(days=1)] * len(KEYS["customer_id"][rows])
        entities = {name: values[rows] for name, values in KEYS.items()}
        return self.store.get_historical_features(pandas.DataFrame({**entities, "event_timestamp": at}), REFERENCES)

    def test_frames_of_lookups_equal_training(self) -> None:
        expected = self.training().to_df()[NAMES]
        for columnar in (False, True):
            pandas.testing.assert_frame_equal(self.online(columnar=columnar).to_df()[NAMES], expected)

    def test_types_of_frames_ignore_values(self) -> None:
        expected = {name: of[3] for name, of in FEATURES.items()}
        for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(None)):
            frames = [self.training(rows), self.online(rows), self.online(rows, columnar=True)]
            for frame in [found.to_df() for found in frames]:
                self.assertEqual({name: str(frame[name].dtype) for name in NAMES}, expected, rows)
        row = self.training().to_df().loc[0]
        self.assertEqual([row["a_uuid"].lower(), Decimal(row["a_decimal"])], [UUID.lower(), Decimal(1500)])
        self.assertEqual(json.loads(row["a_document"]), {"a": [1, None]})
        self.assertEqual(row["a_set"].tolist(), ["a", "b"])

    def test_columns_of_entity_rows_keep_types(self) -> None:
        frame = self.training().to_df()
        self.assertEqual(str(frame["driver_id"].dtype), "int64")
        entities = pandas.DataFrame({"customer_id": ["full"], "driver_id": [1], "event_timestamp": [AT], "label": [True]})
        frame = self.store.get_historical_features(entities, REFERENCES).to_df()
        self.assertEqual([str(frame[name].dtype) for name in ("label", "a_bool")], ["bool", "boolean"])

    def test_schemas_of_responses_ignore_values(self) -> None:
        tables = []
        for keys in (["full"], [None], ["full", None]):
            for columnar in (False, True):
                entities = {"customer_id": keys, "driver_id": [1 if key else None for key in keys]}
                found = self.store.get_online_features(REFERENCES, entities=entities, columnar=columnar)
                tables.append(found.to_arrow())
        for table in tables:
            self.assertEqual(table.schema, tables[0].schema)
            self.assertTrue(all(field.nullable for field in table.schema))
        self.assertEqual(pyarrow.concat_tables(tables, promote_options="none").num_rows, 8)
        frames = [polars.from_arrow(table) for table in tables]
        self.assertEqual(len(polars.concat(frames)), 8)

    def test_objects_of_to_dict_stay(self) -> None:
        for columnar in (False, True):
            found = self.online(slice(0, 1), columnar).to_dict()
            self.assertEqual(found["a_uuid"], [uuid.UUID(UUID)])
            self.assertEqual(found["a_decimal"], [Decimal(1500)])
            self.assertEqual(found["a_map"], [{"a": 1, "b": 2}])
            self.assertEqual(found["a_struct"], [{"a": 1e16, "b": "ö"}])
            self.assertEqual(found["a_set"], [{"a", "b"}])

    def test_event_timestamps_follow_their_columns(self) -> None:
        for columnar in (False, True):
            frame = self.online(columnar=columnar).to_df(include_event_timestamps=True)
            self.assertEqual(list(frame.columns[:6]), [one for name in (*KEYS, NAMES[0]) for one in (name, f"{name}__ts")])
            self.assertEqual(frame["an_int64__ts"].tolist(), [int(AT.timestamp())] * 2 + [0])

    def test_frames_are_accepted_as_entities(self) -> None:
        expected = self.online().to_dict()
        frame = pandas.DataFrame(KEYS)
        table = pyarrow.table(KEYS)
        nullable = frame.astype({"customer_id": "string", "driver_id": "Int64"})
        for entities in (frame, nullable, polars.DataFrame(KEYS), table, table.to_batches()[0], table.to_reader()):
            found = self.store.get_online_features(REFERENCES, entities=entities)
            self.assertEqual(found.to_dict(), expected, type(entities))

    def test_nulls_of_packages_are_nulls(self) -> None:
        expected = self.store.get_online_features(REFERENCES, entities={"customer_id": [None], "driver_id": [None]})
        for null in (pandas.NA, pandas.NaT, numpy.nan, numpy.datetime64("NaT"), float("nan")):
            entities = {"customer_id": [null], "driver_id": pandas.Series([null], dtype=object)}
            found = self.store.get_online_features(REFERENCES, entities=entities)
            self.assertEqual(found.to_dict(), expected.to_dict(), null)
        masked = pandas.DataFrame({"customer_id": ["full", "full"], "driver_id": pandas.array([1, None], "Int64")})
        found = self.store.get_online_features(REFERENCES, entities=masked)
        self.assertEqual(found.to_dict()["an_int32"], [7, None])

    def test_messages_name_forms_of_entities(self) -> None:
        class Relation:
            """A frame of another package, without Arrow data."""

            columns = ("customer_id",)

            def __iter__(self) -> None:
                raise AssertionError("the rows must not be read")

        forms = "a pandas or polars data frame, a pyarrow table, or a list of mappings"
        lengths = "'customer_id' has 2, 'driver_id' has 3. hint: give each column one value per row"
        for entities, message in (
            ({}, f"entities: no columns are given. hint: .*{forms}"),
            ([], "entities: no columns are given. hint"),
            ({"customer_id": ["a", "b"], "driver_id": [1, 2, 3]}, f"different numbers of values: {lengths}"),
            (polars.LazyFrame(KEYS), r"'LazyFrame' is neither .*. hint: call collect\(\) first"),
            (Relation(), f"'Relation' is neither a mapping, a data frame nor a list of rows. hint: .*{forms}"),
            (7, "'int' is neither"),
            (polars.Series("customer_id", ["a"]), f"cannot read Arrow data from a value of the type 'Series': .*{forms}"),
        ):
            with self.assertRaisesRegex(larder.RequestError, message):
                self.store.get_online_features(REFERENCES, entities=entities)

    def test_reprs_do_no_work(self) -> None:
        with_server = repr(larder.FeatureStore(url=self.server.url, token="secret"))
        self.assertEqual(with_server, f"<larder.FeatureStore: url '{self.server.url}'>")
        path = self.home.dir / "larder.yaml"
        parts = f"config '{path}', url '{self.server.url}', feature views: 1, feature services: 0"
        self.assertEqual(repr(self.store), f"<larder.FeatureStore: {parts}>")
        job = self.training()
        self.assertEqual(repr(job), "<larder.RetrievalJob: 17 features, columns: 20, rows: not read>")
        self.assertIsNone(job._rows)
        job.to_arrow()
        self.assertEqual(repr(job), "<larder.RetrievalJob: 17 features, columns: 20, rows: 3>")
        columns = "customer_id, driver_id, an_int64, an_int32, a_bool and 14 more"
        for columnar in (False, True):
            self.assertEqual(repr(self.online(columnar=columnar)), f"<larder.OnlineResponse: 3 rows of {columns}>")


if __name__ == "__main__":
    unittest.main()
