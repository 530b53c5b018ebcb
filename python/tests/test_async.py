"""Lookups in coroutines: the number of threads, timeouts, and cancellation."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import unittest

import larder
from world import FakeServer, answer, read_request

# Far longer than any operation in these tests takes, so that it only passes if a test fails.
LONG = 60.0


class Async(unittest.TestCase):
    def setUp(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most_running = self.requests = 0
        self.may_respond = threading.Event()
        self.server = FakeServer(self.handle)
        self.addCleanup(self.server.close)
        self.addCleanup(self.may_respond.set)

    def handle(self, connection: socket.socket) -> None:
        """Answers lookups when `may_respond` is set, and counts the lookups that wait."""
        while request := read_request(connection):
            if request.startswith(b"POST"):
                with self.lock:
                    self.requests += 1
                    self.running += 1
                    self.most_running = max(self.most_running, self.running)
                self.may_respond.wait(LONG)
                with self.lock:
                    self.running -= 1
            connection.sendall(answer(request))

    async def wait_for_requests(self, count: int) -> None:
        while self.requests < count:
            await asyncio.sleep(0.001)

    def store(self, **arguments: object) -> larder.FeatureStore:
        return larder.FeatureStore(url=self.server.url, timeout=LONG, **arguments)

    @staticmethod
    async def lookup(store: larder.FeatureStore, **arguments: object) -> list:
        response = await store.get_online_features_async(["view:f"], entities={"customer_id": ["C"]}, **arguments)
        return response.to_dict()["f"]

    def test_calls_have_maximum_number_of_threads(self) -> None:
        async def run() -> list[list]:
            store = self.store(async_calls=2)
            calls = [asyncio.ensure_future(self.lookup(store)) for _ in range(10)]
            await self.wait_for_requests(2)
            # The other calls have had the time to send a request.
            await asyncio.sleep(0.2)
            self.assertEqual(self.requests, 2)
            self.may_respond.set()
            return await asyncio.gather(*calls)

        self.assertEqual(asyncio.run(run()), [[7]] * 10)
        self.assertEqual((self.requests, self.most_running), (10, 2))

    def test_waiting_for_thread_counts_toward_timeout(self) -> None:
        async def run() -> None:
            store = self.store(async_calls=1)
            first = asyncio.ensure_future(self.lookup(store))
            await self.wait_for_requests(1)
            with self.assertRaisesRegex(larder.Timeout, "waited 0.1 s for a thread, because 1 calls were running. hint"):
                await self.lookup(store, timeout=0.1)
            self.may_respond.set()
            self.assertEqual(await first, [7])
            self.assertEqual(self.requests, 1)

        asyncio.run(run())

    def test_running_call_times_out(self) -> None:
        async def run() -> None:
            with self.assertRaisesRegex(larder.Timeout, "no response from .* within"):
                await self.lookup(self.store(), timeout=0.2)

        asyncio.run(run())

    def test_cancelled_call_is_not_sent(self) -> None:
        async def run() -> None:
            store = self.store(async_calls=1)
            first = asyncio.ensure_future(self.lookup(store))
            await self.wait_for_requests(1)
            second = asyncio.ensure_future(self.lookup(store))
            await asyncio.sleep(0.05)
            second.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await second
            self.may_respond.set()
            self.assertEqual(await first, [7])
            self.assertEqual(await self.lookup(store), [7])
            self.assertEqual(self.requests, 2)

        asyncio.run(run())

    def test_invalid_arguments_are_rejected(self) -> None:
        with self.assertRaisesRegex(larder.ConfigError, "async_calls: 0 is not a positive number"):
            self.store(async_calls=0)
        with self.assertRaisesRegex(larder.RequestError, "timeout: 0 is not a positive number"):
            asyncio.run(self.lookup(self.store(), timeout=0))

    def test_calls_continue_after_fork(self) -> None:
        self.may_respond.set()
        store = self.store()
        self.assertEqual(asyncio.run(self.lookup(store)), [7])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if asyncio.run(self.lookup(store)) == [7] else 2
            finally:
                os._exit(status)
        deadline = time.monotonic() + LONG
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(ended, (child, 0))


if __name__ == "__main__":
    unittest.main()
