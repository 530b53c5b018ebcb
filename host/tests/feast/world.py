"""Helpers of the scripts: repositories, servers of Feast and Larder, and the comparison of their responses."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable

PATIENCE = 60.0

STORE = """\
project: {project}
provider: local
registry: {registry}
online_store: {online}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""


class Checks:
    """Counts checks, and collects a message for each that fails."""

    def __init__(self) -> None:
        self.made = 0
        self.wrong: list[str] = []

    def equal(self, what: str, ours: Any, theirs: Any) -> None:
        self.made += 1
        if ours != theirs:
            self.wrong.append(f"{what}:\n  Larder {ours!r}\n  Feast  {theirs!r}")

    def true(self, what: str, holds: bool, found: Any = "") -> None:
        self.made += 1
        if not holds:
            self.wrong.append(f"{what}: {found!r}")

    def end(self) -> None:
        print(f"{self.made} checks, {len(self.wrong)} of them failed", flush=True)
        for wrong in self.wrong:
            print(wrong)
        sys.exit(1 if self.wrong else 0)


class Server:
    """A server process on a free port of this machine."""

    def __init__(self, name: str, command: list[str], cwd: Path, port: int, scheme: str = "http") -> None:
        self.name, self.port = name, port
        self.url = f"{scheme}://{'localhost' if scheme == 'https' else '127.0.0.1'}:{port}"
        self.log = cwd / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        # Feast's server has worker processes, which do not end when it is killed.
        atexit.register(self.kill)

    def until_healthy(self, path: str = "/health") -> "Server":
        last: Any = None

        def answers() -> bool:
            nonlocal last
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended:\n{self.log.read_text()}")
            try:
                last = self.get(path)
            except OSError as error:
                last = error
            return last == 200

        eventually(f"{self.name} answers {path}", answers, lambda: f"{last}\n{self.log.read_text()}")
        return self

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Returns the status and the parsed body. If the body is a JSON string that contains JSON, parses that as well,
        as Feast's client does."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        parsed = json.loads(text) if text else None
        try:
            return status, json.loads(parsed) if isinstance(parsed, str) else parsed
        except ValueError:
            return status, parsed

    def columns(self, body: Any) -> tuple[int, Any]:
        """Returns the status, and the columns of a response by name, or the error. The order is not compared."""
        status, answer = self.post("/get-online-features", body)
        if status != 200:
            return status, answer
        return status, dict(zip(answer["metadata"]["feature_names"], answer["results"]))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def die_with_parent() -> None:
    """Makes the kernel kill the server when this script ends, even if the script is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def eventually(what: str, holds: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise SystemExit(f"never: {what}: {why()}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment() -> dict[str, str]:
    # Feast writes local times to its SQLite store, so they are correct only if the time zone is UTC.
    quiet = {"TZ": "UTC", "FEAST_USAGE": "False", "LARDER_METRICS_LISTEN": "off", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet}


def feast(repo: Path, *args: str) -> None:
    """Runs a command of Feast in a repository."""
    command = [str(Path(sys.executable).with_name("feast")), *args]
    done = subprocess.run(command, cwd=repo, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"feast {' '.join(args)}:\n{done.stdout}\n{done.stderr}")


def error_of(call: Callable[[], Any]) -> tuple[str, str]:
    """Returns the class and the message of a call's error."""
    try:
        call()
    except Exception as error:  # noqa: BLE001: errors of any class are compared
        return type(error).__name__, str(error)
    return "nothing", ""


def make_repo(repo: Path, definitions: str) -> None:
    (repo / "data").mkdir(parents=True, exist_ok=True)
    online = "{type: sqlite, path: data/online_store.db}"
    text = STORE.format(project="shop", registry="data/registry.db", online=online)
    (repo / "feature_store.yaml").write_text(text)
    (repo / "definitions.py").write_text(definitions)


def make_client(repo: Path, client: Path, url: str, project: str = "shop", cert: Path | None = None) -> None:
    """Writes the `feature_store.yaml` of a client, with the path of the registry and the URL of the server."""
    client.mkdir(parents=True, exist_ok=True)
    registry = (repo / "data/registry.db").resolve()
    trusted = f', cert: "{cert}"' if cert else ""
    online = f'{{type: remote, path: "{url}"{trusted}}}'
    (client / "feature_store.yaml").write_text(STORE.format(project=project, registry=registry, online=online))


def feast_server(repo: Path) -> Server:
    port = free_port()
    command = [str(Path(sys.executable).with_name("feast")), "serve", "--port", str(port), "--no-access-log"]
    return Server("feast", [*command, "--max-requests", "0"], repo, port)


def larder_server(larder: str, repo: Path, plugins: str | None, *more: str, scheme: str = "http") -> Server:
    port = free_port()
    command = [larder, "serve", "--feast-repo", ".", "--listen", f"127.0.0.1:{port}", *more]
    if plugins:
        command += ["--plugins", plugins]
    return Server("larder", command, repo, port, scheme)
