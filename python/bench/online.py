"""Measures lookups from Python, compared with `wrk` and with other clients of the same server.

All clients use one connection and send the same request. They take turns: one round of each client after the other, so
that a disturbance of the machine affects all of them. The table has the median over the rounds of each round's p50.

Where the processes run matters more than the client: a message to a process on another core has to wake that core, which takes
tens of microseconds on a virtual machine. The scheduler may choose another placement for each client, so the benchmark chooses
it: first the server and all clients on one core, then the clients on another core.

A client that is not installed is left out. `make bench-python` installs all of them in `target/bench-python`.

Usage: online.py LARDER [--rounds 7] [--calls 3000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import larder

SERVICE = "churn_prediction_online"
WIDE_FEATURES = 50
WIDE_ENTITIES = 100
WIDE = [f"wide:f{index}" for index in range(WIDE_FEATURES)]

DEFINITIONS = f"""
entities: [{{name: customer, join_key: id, type: Int64}}]
feature_views:
  - name: wide
    entities: [customer]
    push_source: wide
    features: [{", ".join(f"{{name: f{index}, type: Float64}}" for index in range(WIDE_FEATURES))}]
feature_services:
  - {{name: {SERVICE}, features: [{{view: wide, features: [{", ".join(f"f{index}" for index in range(8))}]}}]}}
"""


@contextmanager
def server(program: str) -> Iterator[tuple[str, str]]:
    """Starts a server with 100 entities. Yields its HTTP and gRPC addresses."""
    home = Path(tempfile.mkdtemp())
    (home / "features").mkdir()
    (home / "features/wide.yaml").write_text(DEFINITIONS)
    (home / "larder.yaml").write_text(
        "project: bench\nserver: {listen: 127.0.0.1:0, workers: 1}\nmetrics: {listen: off}\n"
        "grpc: {listen: 127.0.0.1:0}\n"
    )
    process = subprocess.Popen([os.path.abspath(program), "serve"], cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        http = grpc = ""
        for line in process.stderr or ():
            if "serving listen=" in line:
                http = line.split("listen=")[1].split()[0].strip('"')
                grpc = line.split("grpc=")[1].split()[0].strip('"') if "grpc=" in line else ""
                break
        else:
            raise SystemExit("the server does not start")
        push(f"http://{http}")
        yield http, grpc
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(home)


def push(url: str) -> None:
    import urllib.request

    frame: dict[str, list[Any]] = {"id": list(range(WIDE_ENTITIES)), "event_timestamp": ["2026-11-01T00:00:00Z"] * WIDE_ENTITIES}
    for index in range(WIDE_FEATURES):
        frame[f"f{index}"] = [entity * 1.5 + index / 7 for entity in range(WIDE_ENTITIES)]
    body = json.dumps({"push_source_name": "wide", "df": frame, "to": "online"}).encode()
    urllib.request.urlopen(f"{url}/push", body).close()


# A client: a function that looks up one entity, and the number of calls per round, as a share of `--calls`.
Client = tuple[Callable[[], object], float]


def clients(http: str, grpc: str) -> dict[str, Client]:
    url = f"http://{http}"
    body = {"feature_service": SERVICE, "entities": {"id": [7]}}
    store = larder.FeatureStore(url=url)
    found: dict[str, Client] = {
        "larder, to_dict": (lambda: store.get_online_features(feature_service=SERVICE, entities={"id": [7]}).to_dict(), 1),
    }
    try:
        import requests

        session = requests.Session()
        found["requests"] = (lambda: session.post(f"{url}/get-online-features", json=body).json(), 0.3)
    except ModuleNotFoundError:
        print("requests is not installed")
    try:
        import httpx

        client = httpx.Client()
        found["httpx"] = (lambda: client.post(f"{url}/get-online-features", json=body).json(), 0.3)
    except ModuleNotFoundError:
        print("httpx is not installed")
    feast_clients(found, url, grpc)
    return found


def feast_clients(found: dict[str, Client], url: str, grpc: str) -> None:
    """Adds Feast's SDK with its remote online store, and `grpcio` with Feast's messages."""
    try:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, types, ValueType
    except ModuleNotFoundError:
        print("Feast is not installed")
        return
    home = Path(tempfile.mkdtemp())
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(home / "registry.db"),
        online_store={"type": "remote", "path": url},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    customer = Entity(name="customer", join_keys=["id"], value_type=ValueType.INT64)
    schema = [Field(name="id", dtype=types.Int64), *(Field(name=f"f{index}", dtype=types.Float64) for index in range(8))]
    source = FileSource(path=str(home / "none.parquet"), timestamp_field="event_timestamp")
    with open(os.devnull, "w") as quiet:
        stdout, sys.stdout = sys.stdout, quiet
        try:
            store.apply([customer, FeatureView(name="wide", entities=[customer], schema=schema, source=source)])
        finally:
            sys.stdout = stdout
    references = WIDE[:8]
    found["Feast SDK, remote store"] = (lambda: store.get_online_features(references, [{"id": 7}]).to_dict(), 0.1)
    try:
        import grpc as grpcio
    except ModuleNotFoundError:
        print("grpcio is not installed")
        return
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
    from feast.protos.feast.serving.ServingService_pb2_grpc import ServingServiceStub

    stub = ServingServiceStub(grpcio.insecure_channel(grpc))
    request = GetOnlineFeaturesRequest(feature_service=SERVICE)
    request.entities["id"].val.add(int64_val=7)
    found["grpcio"] = (lambda: stub.GetOnlineFeatures(request), 0.3)


# Measures the time from one request to the next. The latencies that `wrk` prints are not used, because it adds invented ones for
# the requests that it could have sent during slow ones. On a busy machine, they are a thousand times the real ones.
WRK_SCRIPT = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } instant; int clock_gettime(int clock, instant *time);")
local instant, threads, request_text, last = ffi.new("instant"), {}, nil, nil
function setup(thread) threads[#threads + 1] = thread end
function init() times, request_text = {}, wrk.format() end
function request()
  ffi.C.clock_gettime(1, instant)
  local now = tonumber(instant.s) * 1e6 + tonumber(instant.ns) / 1e3
  if last then times[#times + 1] = now - last end
  last = now
  return request_text
end
function done()
  local times = threads[1]:get("times")
  table.sort(times)
  io.write("p50 " .. times[math.floor(#times / 2) + 1] .. "\\n")
end
"""


def wrk_p50(http: str, body: str, headers: dict[str, str], seconds: int = 2) -> float:
    """Returns the median time of a request that `wrk` sends with one connection, in microseconds."""
    lines = [f'wrk.method = "POST"\nwrk.body = [==[{body}]==]\nwrk.headers["content-type"] = "application/json"']
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    lines.append(WRK_SCRIPT)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        command = ["wrk", "-t1", "-c1", f"-d{seconds}s", "-s", script.name, f"http://{http}/get-online-features"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^p50 ([\d.]+)", printed, re.MULTILINE)
    if found is None or "Non-2xx" in printed:
        raise SystemExit(printed)
    return float(found[1])


def p50(call: Callable[[], object], calls: int) -> float:
    """Returns the median duration of a call in microseconds."""
    for _ in range(calls // 10 + 1):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def rounds(count: int, measures: dict[str, Callable[[], float]]) -> dict[str, float]:
    results: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(count):
        for name, measure in measures.items():
            results[name].append(measure())
    return {name: statistics.median(values) for name, values in results.items()}


def table(title: str, found: dict[str, float], base: str) -> None:
    print(f"\n{title}\n")
    print("| client | p50 | beside the first |\n|---|--:|--:|")
    for name, value in found.items():
        print(f"| {name} | {value:.0f} us | {value / found[base]:.2f} |")


def measure(arguments: argparse.Namespace, placement: str, server_core: int, client_core: int) -> None:
    """Prints the tables for a server on one core and clients on the same or another core."""
    # Processes and threads inherit the core.
    os.sched_setaffinity(0, {server_core})
    with server(arguments.larder) as (http, grpc):
        os.sched_setaffinity(0, {client_core})
        body = json.dumps({"feature_service": SERVICE, "entities": {"id": [7]}})
        measures: dict[str, Callable[[], float]] = {"wrk": lambda: wrk_p50(http, body, {})}
        for name, (call, share) in clients(http, grpc).items():
            measures[name] = lambda call=call, share=share: p50(call, max(int(arguments.calls * share), 10))
        table(f"1 entity x 8 features, one connection, {placement}", rounds(arguments.rounds, measures), "wrk")

        ids = list(range(WIDE_ENTITIES))
        wide = json.dumps({"features": WIDE, "entities": {"id": ids}})
        store = larder.FeatureStore(url=f"http://{http}")

        def lookup(columnar: bool) -> larder.OnlineResponse:
            return store.get_online_features(WIDE, entities={"id": ids}, columnar=columnar)

        accept = {"accept": "application/vnd.apache.arrow.stream"}
        calls = max(arguments.calls // 10, 10)
        measures = {
            "wrk, Arrow": lambda: wrk_p50(http, wide, accept),
            "wrk, JSON": lambda: wrk_p50(http, wide, {}),
            "larder, to_numpy of columnar": lambda: p50(lambda: lookup(True).to_numpy(), calls),
            "larder, to_arrow of columnar": lambda: p50(lambda: lookup(True).to_arrow(), calls),
            "larder, to_dict": lambda: p50(lambda: lookup(False).to_dict(), calls),
        }
        title = f"{WIDE_ENTITIES} entities x {WIDE_FEATURES} features, one connection, {placement}"
        table(title, rounds(arguments.rounds, measures), "wrk, Arrow")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures lookups from Python.")
    parser.add_argument("larder", help="the path of an optimized larder program")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000, help="calls of the fastest client in a round")
    arguments = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    measure(arguments, "server and clients on one core", first, first)
    if others:
        measure(arguments, "server and clients on different cores", first, others[0])


if __name__ == "__main__":
    main()
