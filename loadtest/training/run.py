"""Measures `larder training-set`, compared with other engines, and writes a report.

Runs whole processes, one after the other: in each round, every engine joins the same files. Ratios are those of runs in the
same round, because the speed of a shared machine changes over time. The parts are:

* join: the engines, with `--rounds` rounds; the slow engines run only in the first one. Each output is compared with an
  independent computation.
* growth: Larder's memory with feature files ten times as large.
* churn: Larder's CPU time with and without the derived view of the churn plugin.

This module uses only the standard library: the memory of this process counts for those that it starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import report
from process import Measurement, measure

SCRIPTS = Path(__file__).parent
FAST = ["larder", "duckdb", "duckdb-one-query", "polars", "pandas"]
SLOW = ["feast-duckdb", "feast-file"]
FEAST_FILE_GIB = 15
"""The memory that Feast's file store needs for a million entity rows."""
GROWTH = 10
PARTS = ["join", "growth", "churn"]
DERIVED = "customer_derived_features:"
STORED = [
    *(f"customer_behavior_features:{name}" for name in ("tenure_months", "monthly_charges", "total_charges")),
    *(f"customer_behavior_features:{name}" for name in ("support_tickets_30d", "data_usage_gb")),
    *(f"customer_demographics_features:{name}" for name in ("age", "senior_citizen")),
    *(f"customer_contract_features:{name}" for name in ("contract_type", "payment_method")),
]
OUTPUTS = ["charges_per_tenure_month", "tickets_per_month", "is_high_value", "contract_risk"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--larder", type=Path, required=True, help="the program to measure")
    parser.add_argument("--plugin", type=Path, required=True, help="the compiled churn plugin")
    parser.add_argument("--configs", type=Path, required=True, help="the directory of the churn plugin's definitions")
    parser.add_argument("--dir", type=Path, required=True, help="the directory of the workload and the outputs")
    parser.add_argument("--out", type=Path, required=True, help="the directory of the report")
    parser.add_argument("--rows", type=int, default=1_000_000, help="entity rows")
    parser.add_argument("--ids", type=int, default=100_000, help="distinct IDs")
    parser.add_argument("--snapshots", type=int, default=33, help="feature rows of each ID in each view")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS), help="the parts to run, of: " + ",".join(PARTS))
    parser.add_argument("--engines", default=",".join(FAST + SLOW[:1]), help="of: " + ",".join(FAST + SLOW))
    return parser.parse_args()


class Benchmark:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.larder = options.larder.resolve()
        self.base = options.dir.resolve() / "base"
        self.notes: list[str] = []

    def script(self, name: str, *rest: object) -> str:
        command = [sys.executable, str(SCRIPTS / name), *map(str, rest)]
        done = subprocess.run(command, cwd=SCRIPTS, stdout=subprocess.PIPE, check=True, text=True)
        return done.stdout

    def write_workload(self, directory: Path, snapshots: int) -> None:
        print(f"writing {directory}", flush=True)
        self.script("workload.py", directory, self.options.rows, self.options.ids, snapshots)

    def run(self, engine: str, directory: Path, out: Path, *features: str) -> Measurement:
        if engine == "larder":
            command = [self.larder, "training-set", "--entities", "entities.parquet", "--out", out]
            command += features or ["--service", "training"]
        else:
            command = [sys.executable, SCRIPTS / "engines.py", engine, directory, out]
        measured = measure([str(part) for part in command], directory)
        print(f"{engine}: {measured.cpu:.2f} s CPU, {measured.wall:.2f} s, {measured.peak:.0f} MiB", flush=True)
        return measured

    def engines(self) -> list[str]:
        engines = self.options.engines.split(",")
        if "feast-file" in engines and (available := available_gib()) < FEAST_FILE_GIB:
            self.notes.append(f"feast-file was not run: it needs {FEAST_FILE_GIB} GiB of memory; {available:.0f} are free")
            engines.remove("feast-file")
        return engines

    def join(self) -> dict[str, object]:
        self.write_workload(self.base, self.options.snapshots)
        runs: dict[str, list[Measurement]] = {engine: [] for engine in self.engines()}
        outputs = {engine: self.base / f"out_{engine}.parquet" for engine in runs}
        for turn in range(self.options.rounds):
            for engine in runs:
                if turn == 0 or engine not in SLOW:
                    runs[engine].append(self.run(engine, self.base, outputs[engine]))
        checks = json.loads(self.script("oracle.py", self.base, *outputs.values()))
        return {
            engine: {
                "runs": [dataclasses.asdict(run) for run in runs[engine]],
                "output_bytes": outputs[engine].stat().st_size,
                **checks[str(outputs[engine])],
            }
            for engine in runs
        }

    def growth(self) -> dict[str, object]:
        self.write_workload(self.base, self.options.snapshots)
        large = self.base.with_name("large")
        self.write_workload(large, GROWTH * self.options.snapshots)
        sizes = {1: self.base, GROWTH: large}
        runs = {size: self.run("larder", path, path / "out_growth.parquet") for size, path in sizes.items()}
        check = json.loads(self.script("oracle.py", large, large / "out_growth.parquet"))
        shutil.rmtree(large)
        return {
            "runs": {size: dataclasses.asdict(run) for size, run in runs.items()},
            **next(iter(check.values())),
        }

    def churn(self) -> dict[str, object]:
        directory = self.base.with_name("churn")
        options = self.options
        self.script(
            "churn.py", directory, options.rows, options.ids, options.configs.resolve(), options.plugin.resolve()
        )
        requests = {"stored": STORED, "derived": [*STORED, *(DERIVED + name for name in OUTPUTS)]}
        runs: dict[str, list[object]] = {name: [] for name in requests}
        # The first run compiles the plugin, and stores the code in the cache.
        for round_index in range(-1, options.rounds):
            for name, features in requests.items():
                arguments = [argument for feature in features for argument in ("--feature", feature)]
                measured = self.run("larder", directory, directory / f"out_{name}.parquet", *arguments)
                output = (directory / "output.txt").read_text()
                if "could not compute" in output:
                    raise RuntimeError(f"the plugin did not compute all rows: {output}")
                if round_index >= 0:
                    runs[name].append(dataclasses.asdict(measured))
        return {"runs": runs}

    def versions(self) -> list[str]:
        larder = subprocess.run([self.larder, "--version"], stdout=subprocess.PIPE, check=True, text=True)
        query = "from importlib.metadata import version as v\n"
        query += "for name in ('duckdb', 'polars', 'pandas', 'feast'): print(name, v(name))"
        others = subprocess.run([sys.executable, "-c", query], stdout=subprocess.PIPE, check=True, text=True)
        return [larder.stdout.strip(), *others.stdout.splitlines()]


def available_gib() -> float:
    """Returns the memory that processes can use without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / (1 << 20)


def main() -> None:
    options = arguments()
    options.dir.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(options)
    setup = {
        "machine": report.machine(),
        "versions": benchmark.versions(),
        "entity_rows": options.rows,
        "ids": options.ids,
        "snapshots": options.snapshots,
        "rounds": options.rounds,
    }
    results: dict[str, object] = {"setup": setup}
    for part in options.parts.split(","):
        results[part] = getattr(benchmark, part)()
    results["notes"] = benchmark.notes
    (options.out / "training.json").write_text(json.dumps(results, indent=2) + "\n")
    text = report.markdown(json.loads(json.dumps(results)))
    (options.out / "training.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
