"""Connections of lookups: reuse, faults, timeouts, threads, forks, TLS, tokens, and interrupts."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import unittest
from unittest import mock

import larder
from world import ANSWER, CUSTOMER, ENTITIES, FEATURES, TLS, FakeServer, Home, Server, answer, read_request, response

# Far longer than any operation in these tests takes, so that it only passes if a test fails.
LONG = 60.0
TOKEN = "a-token-of-a-test-that-is-not-secret"


def lookup(store: larder.FeatureStore, **arguments: object) -> dict:
    return store.get_online_features(["view:f"], entities={"customer_id": ["C"]}, **arguments).to_dict()


def serve(connection: socket.socket) -> None:
    """Answers all requests of a connection."""
    while request := read_request(connection):
        connection.sendall(answer(request))


class Faults(unittest.TestCase):
    def fake(self, handle: object) -> FakeServer:
        server = FakeServer(handle)
        self.addCleanup(server.close)
        return server

    def test_connections_are_reused(self) -> None:
        server = self.fake(serve)
        store = larder.FeatureStore(url=server.url)
        for _ in range(10):
            self.assertEqual(lookup(store), {"customer_id": ["C"], "f": [7]})
        # One connection for the catalog, and one for the lookups.
        self.assertEqual(server.connections, 2)

    def test_closed_idle_connection_is_replaced(self) -> None:
        def once(connection: socket.socket) -> None:
            connection.sendall(answer(read_request(connection)))
            connection.close()

        server = self.fake(once)
        store = larder.FeatureStore(url=server.url)
        for _ in range(10):
            self.assertEqual(lookup(store)["f"], [7])
        self.assertEqual(server.connections, 11)

    def test_new_connection_without_response_is_not_retried(self) -> None:
        def silent(connection: socket.socket) -> None:
            request = read_request(connection)
            if request.startswith(b"GET"):
                connection.sendall(answer(request))
            else:
                connection.close()

        server = self.fake(silent)
        store = larder.FeatureStore(url=server.url)
        with self.assertRaisesRegex(larder.ConnectionError, "broke before the response was complete"):
            lookup(store)
        self.assertEqual(server.connections, 2)

    def test_response_that_breaks_off_is_not_retried(self) -> None:
        requests = []

        def broken(connection: socket.socket) -> None:
            while request := read_request(connection):
                requests.append(request)
                # The third request is a lookup on a reused connection.
                if len(requests) == 3:
                    connection.sendall(response(ANSWER)[:-5])
                    connection.close()
                    return
                connection.sendall(answer(request))

        store = larder.FeatureStore(url=self.fake(broken).url)
        lookup(store)
        with self.assertRaisesRegex(larder.ConnectionError, "broke before the response was complete"):
            lookup(store)
        self.assertEqual(len(requests), 3)

    def test_refused_connection_is_retried_within_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        store = larder.FeatureStore(url=f"http://127.0.0.1:{port}", timeout=LONG)
        with self.assertRaisesRegex(larder.ConnectionError, f"cannot connect to http://127.0.0.1:{port}: .*hint"):
            lookup(store)

        # A server that starts a little later is found.
        store = larder.FeatureStore(url=f"http://127.0.0.1:{port}", timeout=LONG, connect_retries=1000)
        found = []
        thread = threading.Thread(target=lambda: found.append(lookup(store)))
        thread.start()
        time.sleep(0.2)
        with socket.create_server(("127.0.0.1", port)) as listener:
            for _ in range(2):
                connection, _ = listener.accept()
                self.addCleanup(connection.close)
                connection.sendall(answer(read_request(connection)))
            thread.join(LONG)
        self.assertEqual([one["f"] for one in found], [[7]])

    def test_silent_server_times_out(self) -> None:
        store = larder.FeatureStore(url=self.fake(lambda connection: time.sleep(LONG)).url, timeout=0.3)
        with self.assertRaisesRegex(larder.Timeout, r"no response from http://127.*:\d+ within 0.3 s. hint: raise 'timeout'"):
            lookup(store)
        # The timeout of a call replaces the one of the store.
        with self.assertRaisesRegex(larder.Timeout, "within 0.05 s"):
            lookup(store, timeout=0.05)

    def test_timeout_covers_slow_responses(self) -> None:
        def drip(connection: socket.socket) -> None:
            read_request(connection)
            for byte in response(b"x" * 100_000):
                connection.sendall(bytes([byte]))
                time.sleep(0.01)

        store = larder.FeatureStore(url=self.fake(drip).url, timeout=0.5)
        with self.assertRaises(larder.Timeout):
            lookup(store)

    def test_connection_after_timeout_is_not_reused(self) -> None:
        requests = []

        def slow_once(connection: socket.socket) -> None:
            while request := read_request(connection):
                requests.append(request)
                if len(requests) == 2:
                    time.sleep(0.5)
                    connection.sendall(response(ANSWER.replace(b"[7]", b"[666]")))
                else:
                    connection.sendall(answer(request))

        store = larder.FeatureStore(url=self.fake(slow_once).url, timeout=0.1)
        with self.assertRaises(larder.Timeout):
            lookup(store)
        time.sleep(0.6)
        # The late response belongs to the first lookup.
        self.assertEqual(lookup(store, timeout=LONG)["f"], [7])

    def test_invalid_responses_are_errors(self) -> None:
        for sent, error, message in (
            (b"\x15\x03\x01\x00\x02\x02\x16", larder.ResponseError, "invalid response: .*hint: check that the port"),
            (response(b"{"), larder.ResponseError, "the response is not valid JSON"),
            (response(b"[]"), larder.ResponseError, "the response is not valid JSON"),
            (response(b'{"results":[{"values":[1]}]}'), larder.ResponseError, "another number of names than columns"),
            (response(b"<html>no</html>", "502 Bad Gateway"), larder.RequestError, "status 502: <html>no</html>"),
            (response(b'{"detail":"too busy"}', "503 Service Unavailable"), larder.RequestError, "^too busy$"),
        ):

            def send(connection: socket.socket, sent: bytes = sent) -> None:
                while request := read_request(connection):
                    connection.sendall(sent if request.startswith(b"POST") else answer(request))

            with self.assertRaisesRegex(error, message):
                lookup(larder.FeatureStore(url=self.fake(send).url))

    def test_responses_have_limit(self) -> None:
        server = self.fake(serve)
        store = larder.FeatureStore(url=server.url, max_response_bytes=len(ANSWER))
        self.assertEqual(lookup(store)["f"], [7])
        store = larder.FeatureStore(url=server.url, max_response_bytes=len(ANSWER) - 1)
        with self.assertRaisesRegex(larder.ResponseError, f"larger than {len(ANSWER) - 1} bytes. hint: raise"):
            lookup(store)

    def test_changed_type_is_noticed(self) -> None:
        types = iter(["UnixTimestamp", "String", "String"])

        def changing(connection: socket.socket) -> None:
            while request := read_request(connection):
                if request.startswith(b"GET"):
                    view = {"name": "view", "features": [{"name": "f", "type": next(types)}]}
                    connection.sendall(response(json.dumps({"feature_views": [view]}).encode()))
                else:
                    value = b'["text"]' if seen else b"[60]"
                    connection.sendall(response(ANSWER.replace(b"[7]", value)))

        seen: list[object] = []
        store = larder.FeatureStore(url=self.fake(changing).url)
        seen.extend(lookup(store)["f"])
        self.assertEqual(seen[0].timestamp(), 60)
        self.assertEqual(lookup(store)["f"], ["text"])

    def test_interrupt_stops_waiting_call(self) -> None:
        store = larder.FeatureStore(url=self.fake(lambda connection: time.sleep(LONG)).url, timeout=LONG)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        self.addCleanup(timer.join)
        start = time.monotonic()
        with self.assertRaises(KeyboardInterrupt):
            lookup(store)
        self.assertLess(time.monotonic() - start, LONG / 2)

    def test_other_threads_run_while_call_waits(self) -> None:
        store = larder.FeatureStore(url=self.fake(lambda connection: time.sleep(LONG)).url, timeout=0.5)
        steps = 0
        thread = threading.Thread(target=lambda: self.assertRaises(larder.Timeout, lookup, store))
        thread.start()
        while thread.is_alive():
            steps += 1
            time.sleep(0.001)
        self.assertGreater(steps, 10)

    def test_invalid_settings_are_rejected(self) -> None:
        for arguments, message in (
            ({"url": "127.0.0.1:6566"}, "no scheme. hint: use 'http://HOST:PORT'"),
            ({"url": "http://h", "token": "a\r\nb"}, "the token contains a character that is not printable"),
            ({"url": "http://h", "timeout": 0}, "timeout: 0 is not a positive number"),
            ({"url": "https://h", "ca": "/nowhere/ca.crt"}, "/nowhere/ca.crt: No such file"),
            ({"url": "https://h", "ca": __file__}, "has no certificate"),
            ({"url": "https://h", "client_key": "/nowhere/tls.key"}, "belong together. hint"),
        ):
            with self.assertRaisesRegex(larder.ConfigError, message):
                larder.FeatureStore(**arguments)


class RealServer(unittest.TestCase):
    """Tests with a server of the program."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Home(server="  unix_socket: larder.sock\n")
        cls.server = Server(cls.home)
        cls.store = larder.FeatureStore(url=cls.server.url, timeout=LONG)
        cls.expected = cls.store.get_online_features(FEATURES, entities=ENTITIES).to_dict()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()
        cls.home.close()

    def check_rows(self, store: larder.FeatureStore, rounds: int) -> None:
        """Looks up each entity alone. If connections were mixed up, the responses would belong to other entities."""
        for index in range(rounds):
            row = index % len(ENTITIES["customer_id"])
            found = store.get_online_features(FEATURES, entities={"customer_id": [ENTITIES["customer_id"][row]]})
            expected = {name: values[row : row + 1] for name, values in self.expected.items()}
            self.assertEqual(found.to_dict(), expected)

    def test_threads_share_store(self) -> None:
        failures: list[BaseException] = []

        def run() -> None:
            try:
                self.check_rows(self.store, 100)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=run) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_forks_open_their_own_connections(self) -> None:
        for url in (self.server.url, f"unix://{self.home.dir}/larder.sock"):
            self.check_forks(larder.FeatureStore(url=url, timeout=LONG))

    def check_forks(self, store: larder.FeatureStore) -> None:
        self.check_rows(store, 5)
        stop = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                while not stop.is_set():
                    self.check_rows(store, 5)
            except BaseException as failure:
                failures.append(failure)

        # Threads use the store during the forks.
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                # The child only has this thread.
                status = 1
                try:
                    self.check_rows(store, 50)
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual((statuses, failures), ([0] * len(children), []))
        self.check_rows(store, 5)

    def test_unix_socket(self) -> None:
        store = larder.FeatureStore(url=f"unix://{self.home.dir}/larder.sock")
        self.check_rows(store, 10)
        with self.assertRaisesRegex(larder.ConnectionError, "cannot connect to unix:///nowhere/larder.sock"):
            larder.FeatureStore(url="unix:///nowhere/larder.sock").list_feature_views()

    def test_large_responses_are_complete(self) -> None:
        ids = ENTITIES["customer_id"] * 1000
        for columnar in (False, True):
            found = self.store.get_online_features(FEATURES, entities={"customer_id": ids}, columnar=columnar).to_dict()
            self.assertEqual(found, {name: values * 1000 for name, values in self.expected.items()})

    def test_lookups_continue_after_restart(self) -> None:
        home = Home()
        self.addCleanup(home.close)
        server = Server(home)
        store = larder.FeatureStore(url=server.url, timeout=LONG, connect_retries=1000)
        self.check_rows(store, 5)
        server.stop()
        server = Server(home, server.port)
        self.addCleanup(server.stop)
        self.check_rows(store, 5)


class Access(unittest.TestCase):
    def start(self, server: str) -> Server:
        home = Home(server=server)
        self.addCleanup(home.close)
        (home.dir / "token").write_text(TOKEN)
        started = Server(home)
        self.addCleanup(started.stop)
        return started

    def check(self, store: larder.FeatureStore) -> None:
        found = store.get_online_features(FEATURES, entities=ENTITIES).to_dict()
        self.assertEqual(list(found), ["customer_id", *CUSTOMER])

    def test_tls_checks_certificate(self) -> None:
        server = self.start(f"  tls: {{cert: {TLS}/tls.crt, key: {TLS}/tls.key}}\n")
        url = f"https://localhost:{server.port}"
        store = larder.FeatureStore(url=url, ca=TLS / "ca.crt")
        self.check(store)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.check(store)
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.check(store)
        for arguments, message in (
            ({"url": url, "ca": TLS / "other-ca.crt"}, "TLS handshake with .*: invalid peer certificate"),
            ({"url": f"https://127.0.0.1:{server.port}", "ca": TLS / "ca.crt"}, "TLS handshake with .*not valid for name"),
            ({"url": f"http://localhost:{server.port}"}, "broke before|invalid response"),
        ):
            with self.assertRaisesRegex(larder.LarderError, message):
                self.check(larder.FeatureStore(**arguments))

    def test_client_certificate_is_sent(self) -> None:
        tls = f"cert: {TLS}/tls.crt, key: {TLS}/tls.key, client_ca: {TLS}/ca.crt"
        server = self.start(f"  tls: {{{tls}}}\n")
        arguments = {"url": f"https://localhost:{server.port}", "ca": TLS / "ca.crt"}
        self.check(larder.FeatureStore(**arguments, client_certificate=TLS / "tls.crt", client_key=TLS / "tls.key"))
        with self.assertRaises(larder.ConnectionError):
            self.check(larder.FeatureStore(**arguments))

    def test_token_is_sent(self) -> None:
        server = self.start("  auth: {tokens: [{name: test, file: token}]}\n")
        store = larder.FeatureStore(url=server.url, token=TOKEN)
        self.check(store)
        self.assertNotIn(TOKEN, repr(store))
        with mock.patch.dict(os.environ, {"LARDER_URL": server.url, "LARDER_TOKEN": TOKEN}):
            self.check(larder.FeatureStore())
        for token in (None, "x" * 20):
            with self.assertRaises(larder.RequestError) as raised:
                self.check(larder.FeatureStore(url=server.url, token=token))
            self.assertEqual(raised.exception.status, 401)
            self.assertNotIn("x" * 20, str(raised.exception))

    def test_token_of_service_is_limited_to_it(self) -> None:
        server = self.start("  auth: {tokens: [{name: test, file: token, services: [fs_basic]}]}\n")
        store = larder.FeatureStore(url=server.url, token=TOKEN)
        entities = {"customer_id": ["CUST_000123"], "driver_id": [1001]}
        store.get_online_features(feature_service="fs_basic", entities=entities)
        self.assertEqual([service.name for service in store.list_feature_services()], ["fs_basic"])
        with self.assertRaises(larder.RequestError) as raised:
            store.get_online_features(FEATURES, entities=ENTITIES)
        self.assertEqual(raised.exception.status, 403)


if __name__ == "__main__":
    unittest.main()
