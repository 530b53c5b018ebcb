"""Servers for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

PROGRAM = os.environ["LARDER_TEST_PROGRAM"]
REPO = Path(os.environ["LARDER_TEST_REPO"])
TLS = Path(os.environ["LARDER_TEST_TLS"])
LARDER_YAML = """\
project: churn_prediction
features: [features/*.yaml]
metrics: {{listen: off}}
server:
  listen: {listen}
  workers: 2
{server}"""

# The features of the view that has every kind of value.
CUSTOMER = [
    *("txn_count", "small_int", "avg_amount", "balance", "is_active", "segment", "raw_blob", "last_login", "tags"),
    *("recent_ids", "embedding", "scores", "flags", "blobs", "login_times", "profile_json", "device_uuid"),
]
FEATURES = [f"customer_stats:{name}" for name in CUSTOMER]
ENTITIES = {"customer_id": ["CUST_000124", "CUST_000123", "NOPE", "CUST_000125", "CUST_000123"]}


class Home:
    """A directory with a configuration, definitions, data and a store."""

    def __init__(self, definitions: str | None = None, server: str = "") -> None:
        self.dir = Path(tempfile.mkdtemp())
        self.server = server
        if definitions is None:
            shutil.copytree(REPO, self.dir, dirs_exist_ok=True)
            path = self.dir / "features/feast_repo.yaml"
            # The results must not depend on the clock. One view keeps its ttl of an hour.
            text = path.read_text().replace("ttl: 30d", "ttl: 36500d").replace("ttl: 1d", "ttl: 36500d")
            path.write_text(text)
        else:
            (self.dir / "features").mkdir()
            (self.dir / "features/all.yaml").write_text(definitions)

    def configure(self, listen: str) -> None:
        (self.dir / "larder.yaml").write_text(LARDER_YAML.format(listen=listen, server=self.server))

    def close(self) -> None:
        shutil.rmtree(self.dir, ignore_errors=True)


class Server:
    """A running server. Its data is loaded."""

    def __init__(self, home: Home, port: int = 0) -> None:
        self.home = home
        home.configure(f"127.0.0.1:{port}")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LARDER_")}
        subprocess.run(
            [PROGRAM, "sync"], cwd=home.dir, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.process = subprocess.Popen(
            [PROGRAM, "serve"],
            cwd=home.dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if "serving listen=" in line:
                self.port = int(line.split("listen=")[1].split()[0].strip('"').rsplit(":", 1)[1])
                break
        else:
            raise AssertionError("the server does not listen:\n" + "".join(lines))
        # The pipe must not fill up.
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class FakeServer:
    """A server that handles each connection with a function, in a thread of its own."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.handle = handle
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        try:
            self.handle(connection)
        except OSError:
            pass

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            connection.close()


def read_request(connection: socket.socket) -> bytes:
    """Returns the next request of a connection; empty if the client has closed it."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            while len(body) < int(line.split(b":")[1]):
                body += connection.recv(65536)
    return received


def response(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


ANSWER = (
    b'{"results":[{"values":["C"],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},'
    b'{"values":[7],"statuses":["PRESENT"],"event_timestamps":["2026-11-01T00:00:00Z"]}],'
    b'"metadata":{"feature_names":["customer_id","f"]}}'
)


def answer(request: bytes) -> bytes:
    """Returns the response of a server that has no catalog, such as Feast's."""
    if request.startswith(b"GET /v1/catalog"):
        return response(b'{"detail":"Not Found"}', "404 Not Found")
    return response(ANSWER)
