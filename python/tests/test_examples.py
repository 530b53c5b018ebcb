"""The examples, with a small demo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

import polars

import larder
from world import PROGRAM

EXAMPLES = Path(__file__).parent.parent / "examples"
PLUGIN = Path(__file__).parents[2] / "plugins/built/churn.wasm"
CUSTOMERS = 400


class Churn(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.dir = Path(tempfile.mkdtemp())
        command = [PROGRAM, "demo", "--dir", str(cls.dir / "demo"), "--customers", str(CUSTOMERS), "--listen", "127.0.0.1:0"]
        command += ["--plugin", str(PLUGIN)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
        environment["LARDER_METRICS_LISTEN"] = "off"
        cls.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )
        assert cls.process.stdout is not None
        lines = []
        for line in cls.process.stdout:
            lines.append(line)
            if line.startswith("Serving on "):
                cls.url = line.split()[2].rstrip(".")
                break
        else:
            raise AssertionError("".join(lines))
        cls.reader = threading.Thread(target=cls.process.stdout.read, daemon=True)
        cls.reader.start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.process.terminate()
        cls.process.wait()
        cls.reader.join()
        assert cls.process.stdout is not None
        cls.process.stdout.close()
        shutil.rmtree(cls.dir)

    def run_python(self, *arguments: str) -> str:
        environment = {**os.environ, "LARDER_URL": self.url}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.dir, env=environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_script_trains_and_compares(self) -> None:
        printed = self.run_python(str(EXAMPLES / "churn.py"), "--customers", str(CUSTOMERS))
        self.assertIn("values are equal online and in training", printed)
        self.assertRegex(printed, r"accuracy on \d+ other customers: 0\.[6-9]")
        self.assertRegex(printed, r"CUST_000001 leaves with a chance of \d+%")

    def test_notebook_has_code_of_script(self) -> None:
        cells = json.loads((EXAMPLES / "churn.ipynb").read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        script = (EXAMPLES / "churn.py").read_text()
        for definition in code:
            if definition.startswith("def "):
                self.assertIn(definition, script)
        # The notebook runs, too. It trains with more customers than this demo has.
        text = "\n\n".join(code).replace("2001", str(CUSTOMERS + 1))
        (self.dir / "notebook.py").write_text(text + "\nprint('done')\n")
        self.assertIn("done", self.run_python("notebook.py"))

    def test_derived_features_equal_lookups(self) -> None:
        # With another directory for compiled code than the server, the package compiles the plugin.
        data_dir = self.dir / "other"
        with mock.patch.dict(os.environ, {"LARDER_STORE_DATA_DIR": str(data_dir)}):
            store = larder.FeatureStore(self.dir / "demo/larder.yaml", url=self.url)
        service = "churn_prediction_derived"
        ids = [f"CUST_{number:06}" for number in range(1, 51)]
        inputs = {"customer_id": ids, "discount_percent": [10.0] * len(ids)}
        entities = polars.DataFrame({**inputs, "event_timestamp": [datetime.now(timezone.utc)] * len(ids)})
        rows = store.get_historical_features(entities, feature_service=service).to_arrow()
        online = store.get_online_features(feature_service=service, entities=inputs, columnar=True).to_arrow()
        self.assertTrue(any(path.is_file() for path in data_dir.rglob("compiled/**/*")))
        names = [name for name in online.column_names if name not in inputs]
        self.assertGreater(len(names), 8)
        for name in names:
            self.assertEqual(rows[name].to_pylist(), online[name].to_pylist(), name)

    def backfill_store(self) -> larder.FeatureStore:
        """Returns a store with the derived view `history`, which reads no request data."""
        home = self.dir / "demo"
        text = (home / "features/churn_derived.yaml").read_text().split("feature_services:")[0]
        request = "{name: discount_percent, request: Float64}"
        self.assertIn(request, text)
        stored = '{name: discount_percent, from: "customer_behavior_features:monthly_charges"}'
        text = text.replace(request, stored).replace("- name: customer_derived_features", "- name: history")
        (home / "history.yaml").write_text(text)
        config = home / "larder-history.yaml"
        config.write_text("features: [features/churn.yaml, history.yaml]\nplugins: {dir: plugins}\n")
        return larder.FeatureStore(config, url=self.url)

    def test_backfill_equals_training_set(self) -> None:
        store = self.backfill_store()
        latest = polars.read_parquet(self.dir / "demo/data/customer_features.parquet")["event_timestamp"].max()
        start, end = latest - timedelta(days=3), latest
        out = self.dir / "filled"
        files = store.backfill("history", start, end, out, memory="64MiB", threads=2)
        self.assertEqual(sorted(out.iterdir()), sorted(file.path for file in files))
        self.assertGreater(sum(file.rows for file in files), 100)
        for file in files:
            rows = polars.read_parquet(file.path)
            self.assertEqual((file.rows, file.report["rows"] >= file.rows), (len(rows), True))
            if file.rows > 0:
                self.assertGreaterEqual(rows["event_timestamp"].min(), start)
                self.assertLess(rows["event_timestamp"].max(), end)
            entities = rows.select("customer_id", "event_timestamp")
            names = rows.columns[2:]
            expected = store.get_historical_features(entities, [f"history:{name}" for name in names]).to_polars()
            self.assertTrue(rows.equals(expected))
        # Times without a zone are in UTC, and times can be text.
        texts = [time.replace(tzinfo=None).isoformat() for time in (start, end)]
        again = store.backfill("history", *texts, self.dir / "again")
        self.assertEqual([file.path.read_bytes() for file in again], [file.path.read_bytes() for file in files])

    def test_backfill_mistakes_are_named(self) -> None:
        store = self.backfill_store()
        out = self.dir / "mistakes"
        for view, start, end, error, message in (
            ("histori", "2026-01-01", "2026-01-02", larder.TrainingError, "did you mean 'history'"),
            ("history", "2026-01-02", "2026-01-02T00:00:00Z", larder.RequestError, "start: 2026-01-02 is not before the end"),
            ("history", "yesterday", "2026-01-02", larder.RequestError, "start: 'yesterday' is not a time such as"),
            ("history", "2026-01-02", 7, larder.RequestError, "end: type 'int' is not supported. hint: use a datetime"),
        ):
            with self.assertRaisesRegex(error, message):
                store.backfill(view, start, end, out)
        self.assertFalse(out.exists())
        with self.assertRaisesRegex(larder.ConfigError, "the store has no definitions"):
            larder.FeatureStore(url=self.url).backfill("history", "2026-01-01", "2026-01-02", out)

    def test_interrupt_stops_backfill(self) -> None:
        store = self.backfill_store()
        out = self.dir / "interrupted"
        timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        self.addCleanup(timer.join)
        with self.assertRaises(KeyboardInterrupt):
            for _ in range(1000):
                store.backfill("history", "2000-01-01", "2100-01-01", out)
        self.assertEqual([path.name for path in out.iterdir() if path.name.startswith(".")], [])


if __name__ == "__main__":
    unittest.main()
