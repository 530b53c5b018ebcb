"""Stores and runs in other processes: pickles, forks, killed processes, and Ctrl-C."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from unittest import mock

import pyarrow
import pyarrow.parquet

import larder
from world import FEATURES as ALL_FEATURES
from world import Home, Server

FEATURES = ALL_FEATURES[:4]
AT = datetime(2026, 11, 24, tzinfo=timezone.utc)
# Far longer than any operation in these tests takes, so that it only passes if a test fails.
LONG = 60.0
# More than the batches that a run computes ahead of its reader.
ROWS = 100_000
TOKEN = "a-token-of-a-test-that-is-not-secret"

# Writes a training set. The first argument says whether the entity rows never end.
WRITE = f"""
import itertools, sys
import pyarrow, pyarrow.parquet
import larder

rows = pyarrow.parquet.read_table("entities.parquet").to_batches(max_chunksize=1000)
batches = itertools.cycle(rows) if sys.argv[1] == "endless" else rows
entities = pyarrow.RecordBatchReader.from_batches(rows[0].schema, batches)
job = larder.FeatureStore("larder.yaml").get_historical_features(entities, {FEATURES!r})
print("ready", flush=True)
job.to_parquet("out/set.parquet")
"""


def entity_rows(count: int) -> pyarrow.Table:
    return pyarrow.table(
        {
            "customer_id": [f"CUST_{row % 1000:06}" for row in range(count)],
            "event_timestamp": pyarrow.array([AT] * count, pyarrow.timestamp("us", "UTC")),
        }
    )


def count_matches(store: larder.FeatureStore, path: str) -> int:
    """Builds a training set in a process that has another directory than the one that created the store."""
    os.chdir("/")
    return int(store.get_historical_features(path, FEATURES).report["views"][0]["matched"])


def lookup(store: larder.FeatureStore) -> list:
    return store.get_online_features(FEATURES, entities={"customer_id": ["CUST_000123"]}).to_dict()["txn_count"]


class Processes(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Home()
        cls.home.configure("127.0.0.1:0")
        cls.path = str(cls.home.dir / "entities.parquet")
        pyarrow.parquet.write_table(entity_rows(ROWS), cls.path)
        cls.store = larder.FeatureStore(cls.home.dir / "larder.yaml")
        cls.matched = cls.store.get_historical_features(cls.path, FEATURES).report["views"][0]["matched"]
        assert cls.matched > 0

    @classmethod
    def tearDownClass(cls) -> None:
        cls.home.close()

    def fork(self, run: Callable[[], bool]) -> None:
        """Runs a function in a child process, and checks that it returns True."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if run() else 2
            finally:
                os._exit(status)
        deadline = time.monotonic() + LONG
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                self.fail("the child process waits forever")
            time.sleep(0.01)
        self.assertEqual(ended, (child, 0))

    # === Pickles ===

    def test_pickled_store_opens_in_spawned_process(self) -> None:
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.home.dir)
        store = larder.FeatureStore("larder.yaml", timeout=7.0)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            self.assertEqual(pool.apply(count_matches, (store, self.path)), self.matched)
        with mock.patch.dict(os.environ, {"LARDER_CONFIG": "larder.yaml"}):
            pickled = pickle.dumps(larder.FeatureStore())
        os.chdir("/")
        self.assertEqual(count_matches(pickle.loads(pickled), self.path), self.matched)

    def test_pickled_store_connects(self) -> None:
        server = Server(self.home)
        self.addCleanup(server.stop)
        with mock.patch.dict(os.environ, {"LARDER_URL": server.url}):
            store = larder.FeatureStore()
            found = lookup(store)
        copies = [pickle.loads(pickle.dumps(store)) for _ in range(2)]
        for copy in copies:
            self.assertEqual(lookup(copy), found)

    def test_token_of_environment_is_not_pickled(self) -> None:
        url = "http://127.0.0.1:1"
        with mock.patch.dict(os.environ, {"LARDER_TOKEN": TOKEN}):
            self.assertNotIn(TOKEN.encode(), pickle.dumps(larder.FeatureStore(url=url)))
        store = larder.FeatureStore(url=url, token=TOKEN)
        self.assertIn(TOKEN.encode(), pickle.dumps(store))
        self.assertNotIn(TOKEN, repr(store._settings))

    # === Forks ===

    def test_fork_during_run_leaves_run_to_parent(self) -> None:
        job = self.store.get_historical_features(self.path, FEATURES)
        prepared = self.store.get_historical_features(self.path, FEATURES)
        batches = job.to_batches()
        rows = next(batches).num_rows

        def child() -> bool:
            try:
                next(batches)
                return False
            except larder.TrainingError as error:
                if "the run belongs to the parent process. hint: start the run after the fork" not in str(error):
                    raise
            other = self.store.get_historical_features(self.path, FEATURES).report["views"][0]["matched"]
            return other == prepared.report["views"][0]["matched"] == self.matched

        for _ in range(3):
            self.fork(child)
        self.assertEqual(rows + sum(batch.num_rows for batch in batches), ROWS)
        self.assertEqual(job.report["views"][0]["matched"], self.matched)

    def test_rows_of_finished_run_survive_fork(self) -> None:
        job = self.store.get_historical_features(self.path, FEATURES)
        table = job.to_arrow()
        self.fork(lambda: job.to_arrow().equals(table))

    # === Killed and interrupted processes ===

    def start(self, rows: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, rows],
            cwd=self.home.dir,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.home.dir / "out").iterdir())

    def check_complete(self, expected: bytes | None = None) -> bytes:
        """Checks that the set has all rows, and that the manifest is the one of the set."""
        out = self.home.dir / "out/set.parquet"
        written = out.read_bytes()
        self.assertEqual(pyarrow.parquet.read_metadata(out).num_rows, ROWS)
        if expected is not None:
            self.assertEqual(written, expected)
        manifest = out.with_name("set.parquet.manifest.json")
        if manifest.exists():
            self.assertEqual(json.loads(manifest.read_text())["output"]["files"][0]["bytes"], len(written))
        return written

    def outputs(self) -> Iterator[None]:
        (self.home.dir / "out").mkdir()
        yield
        for path in (self.home.dir / "out").iterdir():
            path.unlink()
        (self.home.dir / "out").rmdir()

    def setUp(self) -> None:
        outputs = self.outputs()
        next(outputs)
        self.addCleanup(next, outputs, None)

    def test_killed_process_leaves_no_half_written_set(self) -> None:
        process = self.start("all")
        start = time.monotonic()
        _, errors = process.communicate()
        took = time.monotonic() - start
        self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(self.files(), ["set.parquet", "set.parquet.manifest.json"])
        expected = self.check_complete()
        seed = random.randrange(1 << 32)
        delays = random.Random(seed)
        killed = 0
        for attempt in range(8):
            out = self.home.dir / "out/set.parquet"
            if attempt % 2 == 0:
                out.unlink(missing_ok=True)
                out.with_name("set.parquet.manifest.json").unlink(missing_ok=True)
            was_there = out.exists()
            process = self.start("all")
            time.sleep(delays.uniform(0, took))
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            with self.subTest(seed=seed, attempt=attempt):
                # An earlier set stays until the new one is complete.
                self.assertTrue(out.exists() or not was_there)
                if out.exists():
                    self.check_complete(expected)
        self.assertGreater(killed, 0)
        # The next run replaces the files that the killed ones left.
        process = self.start("all")
        _, errors = process.communicate()
        self.assertEqual(process.returncode, 0, errors)
        self.assertEqual(self.files(), ["set.parquet", "set.parquet.manifest.json"])
        self.check_complete(expected)

    def test_process_killed_during_run_leaves_no_set(self) -> None:
        process = self.start("endless")
        deadline = time.monotonic() + LONG
        while ".set.parquet.tmp" not in self.files() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        self.assertEqual(self.files(), [".set.parquet.lock", ".set.parquet.tmp"])

    def test_interrupted_process_leaves_no_file(self) -> None:
        process = self.start("endless")
        deadline = time.monotonic() + LONG
        while not self.files() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LONG)
        self.assertEqual(process.returncode, -signal.SIGINT, errors)
        self.assertTrue(errors.rstrip().endswith("KeyboardInterrupt"), errors)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
