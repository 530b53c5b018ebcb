"""Lookups from a server, and the forms of their results."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import unittest
import urllib.request
from datetime import datetime, timezone
from unittest import mock

import numpy
import pandas
import polars
import pyarrow

import larder
from larder._catalog import Catalog
from world import CUSTOMER, ENTITIES, FEATURES, Home, Server


class Lookups(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Home()
        cls.server = Server(cls.home)
        cls.store = larder.FeatureStore(url=cls.server.url)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()
        cls.home.close()

    def json(self, **request: object) -> dict:
        body = json.dumps(request).encode()
        with urllib.request.urlopen(f"{self.server.url}/get-online-features", body) as answer:
            return json.load(answer)

    def lookup(self, **arguments: object) -> larder.OnlineResponse:
        return self.store.get_online_features(FEATURES, entities=ENTITIES, **arguments)

    def test_columns_statuses_and_times_equal_json(self) -> None:
        raw = self.json(features=FEATURES, entities=ENTITIES)
        found = self.lookup()
        self.assertEqual(found.feature_names, raw["metadata"]["feature_names"])
        for name, column in zip(found.feature_names, raw["results"]):
            self.assertEqual(found.statuses[name], column["statuses"])
            times = [datetime.fromisoformat(time.replace("Z", "+00:00")) for time in column["event_timestamps"]]
            epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
            self.assertEqual([time or epoch for time in found.event_timestamps[name]], times)
        for name in ("customer_id", "txn_count", "small_int", "balance", "is_active", "segment", "tags", "recent_ids"):
            values = raw["results"][found.feature_names.index(name)]["values"]
            self.assertEqual(found.to_dict()[name], values)

    def test_columnar_response_has_same_values(self) -> None:
        rows, columns = self.lookup(), self.lookup(columnar=True)
        self.assertEqual(rows.feature_names, columns.feature_names)
        self.assertEqual(rows.to_dict(include_event_timestamps=True), columns.to_dict(include_event_timestamps=True))
        self.assertEqual(rows.statuses, columns.statuses)
        self.assertEqual(rows.event_timestamps, columns.event_timestamps)
        self.assertEqual(rows.to_arrow().to_pydict(), columns.to_arrow().to_pydict())
        self.assertEqual(rows.to_arrow().schema.types, columns.to_arrow().schema.types)
        self.assertTrue(rows.to_polars().equals(columns.to_polars()))
        pandas.testing.assert_frame_equal(rows.to_df(), columns.to_df())
        for name, array in rows.to_numpy().items():
            other = columns.to_numpy()[name]
            self.assertEqual(array.dtype, other.dtype)
            numpy.testing.assert_array_equal(array, other)

    def test_every_form_of_request_gives_same_rows(self) -> None:
        expected = self.lookup().to_dict()
        ids = ENTITIES["customer_id"]
        rows = [{"customer_id": value} for value in ids]
        for entities in (
            {"customer_id": tuple(ids)},
            {"customer_id": numpy.array(ids)},
            {"customer_id": pandas.Series(ids)},
            {"customer_id": pyarrow.array(ids)},
            pandas.DataFrame({"customer_id": ids}),
            polars.DataFrame({"customer_id": ids}),
            rows,
            iter(rows),
        ):
            self.assertEqual(self.store.get_online_features(FEATURES, entities=entities).to_dict(), expected)
        # The arguments of Feast.
        self.assertEqual(self.store.get_online_features(FEATURES, rows).to_dict(), expected)
        self.assertEqual(self.store.get_online_features(features=FEATURES, entity_rows=rows).to_dict(), expected)

    def test_service_by_name_and_by_object(self) -> None:
        entities = {"customer_id": ["CUST_000123"], "driver_id": [1001]}
        service = next(service for service in self.store.list_feature_services() if service.name == "fs_basic")
        by_name = self.store.get_online_features(feature_service="fs_basic", entities=entities).to_dict()
        by_object = self.store.get_online_features(service, entities).to_dict()
        self.assertEqual(by_name, by_object)
        self.assertEqual(len(by_name), len(service.features) + 2)
        self.assertEqual(self.store.get_feature_service_features("fs_basic"), service.features)
        with self.assertRaisesRegex(larder.RequestError, "'nope' does not exist. hint: the services are .*'fs_basic'"):
            self.store.get_feature_service_features("nope")

    def test_keys_of_every_type_are_sent(self) -> None:
        features = ["driver_stats:conv_rate"]
        expected = self.store.get_online_features(features, entities={"driver_id": [1001, None]}).to_dict()
        self.assertIsNotNone(expected["conv_rate"][0])
        for values in ([numpy.int64(1001), None], ["1001", None], [numpy.int32(1001), float("nan")]):
            found = self.store.get_online_features(features, entities={"driver_id": values}).to_dict()
            self.assertEqual(found["conv_rate"], expected["conv_rate"], values)

    def test_full_feature_names(self) -> None:
        found = self.lookup(full_feature_names=True)
        self.assertEqual(found.feature_names, ["customer_id", *(f"customer_stats__{name}" for name in CUSTOMER)])
        self.assertEqual(found.to_dict()["customer_stats__raw_blob"], self.lookup().to_dict()["raw_blob"])
        self.assertEqual(self.lookup(full_feature_names=True, columnar=True).to_dict(), found.to_dict())

    def test_event_timestamps_are_seconds(self) -> None:
        found = self.store.get_online_features(
            ["customer_stats:txn_count"], entities={"customer_id": ["CUST_000123", "NOPE"]}
        )
        time = found.event_timestamps["txn_count"][0]
        self.assertEqual(found.to_dict(True)["txn_count__ts"], [int(time.timestamp()), 0])
        self.assertEqual(found.to_df(True)["txn_count__ts"].tolist(), [int(time.timestamp()), 0])

    def test_integers_with_nulls_stay_exact(self) -> None:
        frame = self.lookup().to_df()
        self.assertEqual(str(frame["txn_count"].dtype), "Int64")
        self.assertEqual(frame["txn_count"][1], 9007199254740993)
        self.assertTrue(frame["txn_count"].isna()[2])

    def test_numpy_arrays_are_writable(self) -> None:
        array = self.lookup(columnar=True).to_numpy()["balance"]
        array[0] = 1.0
        self.assertEqual(array[0], 1.0)

    def test_columnar_response_is_arrow_stream(self) -> None:
        found = self.lookup(columnar=True)
        table = pyarrow.table(found)
        self.assertTrue(table.equals(found.to_arrow()))
        self.assertEqual(pyarrow.schema(found), table.schema)
        self.assertTrue(polars.DataFrame(found).equals(found.to_polars()))

    def test_views_and_services_are_listed(self) -> None:
        views = {view.name: view for view in self.store.list_feature_views()}
        view = views["customer_stats"]
        self.assertEqual((view.join_keys, [feature.name for feature in view.features]), (["customer_id"], CUSTOMER))
        self.assertEqual(view.features[0].type, "Int64")
        self.assertEqual(views["expired_stats"].ttl.total_seconds(), 3600)
        self.assertIsNone(views["driver_stats"].ttl)
        services = {service.name: service for service in self.store.list_feature_services()}
        self.assertEqual(services["fs_basic"].inputs, {"customer_id": "String", "driver_id": "Int64"})

    def test_validation_lists_unusable_values(self) -> None:
        rows = {"customer_id": ["CUST_000123", "CUST_000125", "NOPE"]}
        features = ["customer_stats:txn_count", "expired_stats:stale_value"]
        problem = larder.FeatureProblem
        missing = [problem(2, "txn_count", "NOT_FOUND"), problem(2, "stale_value", "NOT_FOUND")]
        found = self.store.validate_features(rows, features)
        self.assertIn(problem(0, "stale_value", "OUTSIDE_MAX_AGE"), found)
        self.assertEqual([one for one in found if one.row == 2], missing)
        self.assertNotIn(problem(1, "txn_count", "NULL"), found)
        self.assertIn(problem(1, "txn_count", "NULL"), self.store.validate_features(rows, features, allow_nulls=False))
        self.assertEqual(self.store.validate_features({"customer_id": ["CUST_000123"]}, features[:1]), [])

    def test_service_is_found_by_its_inputs(self) -> None:
        self.assertEqual(self.store.service_for(["driver_id", "customer_id"]), "fs_basic")
        with self.assertRaisesRegex(larder.RequestError, "no feature service has the inputs 'x'. hint: .*feature_service"):
            self.store.service_for(["x"])

    def test_server_errors_have_message_and_status(self) -> None:
        with self.assertRaises(larder.RequestError) as raised:
            self.store.get_online_features(["customer_stats:nope"], entities=ENTITIES)
        self.assertEqual(str(raised.exception), "Feature nope not found in projection customer_stats")
        self.assertEqual(raised.exception.status, 404)
        copy = pickle.loads(pickle.dumps(raised.exception))
        self.assertEqual((str(copy), copy.status), (str(raised.exception), 404))
        for arguments in ({"feature_service": "nope"}, {"features": FEATURES}):
            with self.assertRaises(larder.RequestError) as raised:
                self.store.get_online_features(**arguments, entities={"driver_id": [1001]})
            self.assertIsInstance(raised.exception, larder.LarderError)
            self.assertIn(raised.exception.status, (400, 404))

    def test_invalid_arguments_name_the_way_out(self) -> None:
        get = self.store.get_online_features
        deep: list = []
        for _ in range(200):
            deep = [deep]
        for call, message in (
            (lambda: get(FEATURES, entities={"customer_id": "CUST_000123"}), "'customer_id' has the type 'str' and is not a list. hint"),
            (lambda: get(FEATURES, entities={"customer_id": 7}), "'customer_id' has the type 'int' and is not a list. hint"),
            (lambda: get(FEATURES, entities="CUST_000123"), "'str' is neither a mapping, .* nor a list of rows. hint"),
            (lambda: get(FEATURES, entities=["CUST_000123"]), "row 0 is a str, not a mapping"),
            (lambda: get(FEATURES, entities=[{"a": 1}, {"b": 1}]), "row 1 has other names than row 0"),
            (lambda: get(FEATURES, entities={"customer_id": [object()]}), "'customer_id', row 0: a value of the type 'object' cannot be sent"),
            (lambda: get(FEATURES, entities={"customer_id": ["a", b"\xff"]}), "row 1: lookups only support bytes that are"),
            (lambda: get(FEATURES, entities={"customer_id": ["\ud800"]}), "row 0: the text is not valid Unicode"),
            (lambda: get(FEATURES, entities={"customer_id": [deep]}), "nested too deeply"),
            (lambda: get(FEATURES, entities={7: ["a"]}), "the name 7 is not a string"),
            (lambda: get(FEATURES), "no entities are given. hint"),
            (lambda: get(entities=ENTITIES), "no features are given. hint"),
            (lambda: get("customer_stats:txn_count", entities=ENTITIES), "is not a list. hint"),
            (lambda: get(FEATURES, entities=ENTITIES, feature_service="fs_basic"), "both given. hint"),
            (lambda: get(FEATURES, ENTITIES, entities=ENTITIES), "the same argument. hint"),
        ):
            with self.assertRaisesRegex(larder.RequestError, message) as raised:
                call()
            self.assertIsNone(raised.exception.status)
        with self.assertRaisesRegex(larder.RequestError, "timeout: -1 is not a positive number"):
            get(FEATURES, entities=ENTITIES, timeout=-1)

    def test_coroutines_look_up_at_the_same_time(self) -> None:
        async def lookups() -> list[larder.OnlineResponse]:
            calls = (self.store.get_online_features_async(FEATURES, entities=ENTITIES) for _ in range(20))
            return await asyncio.gather(*calls)

        expected = self.lookup().to_dict()
        for found in asyncio.run(lookups()):
            self.assertEqual(found.to_dict(), expected)

    def test_missing_packages_are_named(self) -> None:
        found = self.lookup()
        calls = {"pandas": found.to_df, "polars": found.to_polars, "pyarrow": found.to_arrow, "numpy": found.to_numpy}
        for package, call in calls.items():
            with mock.patch.dict(sys.modules, {package: None}):
                with self.assertRaisesRegex(larder.MissingPackageError, f"'{package}'.* hint: pip install {package}"):
                    call()


class NewerServer(unittest.TestCase):
    def test_unknown_keys_of_catalog_are_ignored(self) -> None:
        feature = {"name": "f", "type": "Int64", "doc": "From the plugin.", "later": 1}
        view = {"name": "v", "features": [feature], "plugin": "p", "later": {}}
        catalog = Catalog({"derived_views": [view], "later": []})
        self.assertEqual(catalog.views[0].features[0].doc, "From the plugin.")
        self.assertEqual(catalog.column_types(None, ["v:f"], True), {"v__f": "Int64"})


class Package(unittest.TestCase):
    def test_import_loads_no_other_package(self) -> None:
        code = (
            "import sys, larder\n"
            "loaded = [name for name in ('larder._native', 'numpy', 'pandas', 'pyarrow', 'polars') if name in sys.modules]\n"
            "assert not loaded, loaded\n"
            "assert larder.__version__\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_exceptions_are_one_hierarchy(self) -> None:
        errors = (larder.ConfigError, larder.ConnectionError, larder.RequestError, larder.ResponseError, larder.Timeout)
        for error in (*errors, larder.MissingPackageError):
            self.assertTrue(issubclass(error, larder.LarderError))
        self.assertTrue(issubclass(larder.ConnectionError, ConnectionError))
        self.assertTrue(issubclass(larder.Timeout, TimeoutError))


if __name__ == "__main__":
    unittest.main()
