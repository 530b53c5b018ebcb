"""The examples, with a small demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from datetime import datetime, timezone
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


if __name__ == "__main__":
    unittest.main()
