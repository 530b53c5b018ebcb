"""Formats the results of the training benchmark as Markdown."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

BUSY = 1.0
"""The load of a machine that other processes use: the mean number of their runnable processes."""
GROWTH_MAX = 1.1
"""The peak memory with ten times as many feature rows, relative to that without, that still counts as equal."""
PLUGIN_SECONDS = 1.0
"""The maximum CPU time of the churn plugin for a million entity rows."""
# The measurement, the engine, and the maximum of Larder's value relative to the engine's.
GOALS = [
    ("cpu", "duckdb", 0.7),
    ("peak", "duckdb", 0.5),
    ("cpu", "polars", 0.4),
    ("cpu", "feast-duckdb", 0.2),
    ("cpu", "feast-file", 0.03),
]
LABELS = {"cpu": "CPU time", "peak": "peak memory"}


def machine() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].split(":")[1].strip() if models else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def spread(values: list[float], digits: int) -> str:
    """Formats the median, and the minimum and maximum if there are several values."""
    text = f"{median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def of(engine: dict[str, Any], measured: str) -> list[float]:
    return [run[measured] for run in engine["runs"]]


def ratios(ours: dict[str, Any], theirs: dict[str, Any], measured: str) -> list[float]:
    """Returns the ratio of each round in which both ran."""
    pairs = zip(of(ours, measured), of(theirs, measured), strict=False)
    return [mine / other for mine, other in pairs]


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Formats a table. All columns but the first are aligned to the right."""
    lines = [headings, ["---"] + ["--:"] * (len(headings) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def best_duckdb(engines: dict[str, Any], measured: str) -> str:
    """Returns the form of DuckDB's query that takes less CPU time or memory."""
    forms = [name for name in ("duckdb", "duckdb-one-query") if name in engines]
    return min(forms, key=lambda name: median(of(engines[name], measured)), default="duckdb")


def goal_row(name: str, found: list[float], most: float, unit: str = "") -> list[str]:
    met = "yes" if median(found) <= most else "**no**"
    return [name, f"≤ {most}{unit}", spread(found, 3 if most < 0.1 else 2) + unit, met]


def markdown(results: dict[str, Any]) -> str:
    setup = results["setup"]
    text = "# Training sets\n\n"
    text += f"* {setup['machine']}\n* {'; '.join(setup['versions'])}\n"
    text += f"* {setup['entity_rows']:,} entity rows of {setup['ids']:,} IDs; "
    text += f"3 views of {setup['ids'] * setup['snapshots']:,} rows with 5 doubles; ttl 7 days; from Parquet to Parquet\n"
    text += f"* {setup['rounds']} rounds; median (minimum..maximum)\n"
    text += "".join(f"* {note}\n" for note in results["notes"])
    goals: list[list[str]] = []
    if "join" in results:
        engines = results["join"]
        highest = max(run["load"] for run in engines["larder"]["runs"])
        # The benchmark itself has one runnable process.
        if highest > BUSY + 1:
            text += f"* **The machine was busy**: its load was up to {highest:.1f}, so the times are too long.\n"
        text += "\n## Engines\n\n" + engine_table(engines)
        goals += join_goals(engines)
    if "growth" in results:
        growth = results["growth"]
        small, large = growth["runs"].values()
        text += "\n## Feature files ten times as large\n\n"
        rows = [[name, f"{run['cpu']:.1f}", f"{run['peak']:,.0f}"] for name, run in (("1", small), ("10", large))]
        text += table(["size", "CPU s", "peak MiB"], rows)
        text += f"\nMissing rows: {growth['missing_rows']}; differing cells: {growth['differing_cells']}\n"
        name = "peak memory with feature files ten times as large, relative to that without"
        goals.append(goal_row(name, [large["peak"] / small["peak"]], GROWTH_MAX))
    if "churn" in results:
        stored, derived = ({"runs": results["churn"]["runs"][name]} for name in ("stored", "derived"))
        text += "\n## Churn plugin\n\n"
        rows = [[name, spread(of(runs, "cpu"), 2)] for name, runs in (("without", stored), ("with", derived))]
        text += table(["derived view", "CPU s"], rows)
        more = [after - before for before, after in zip(of(stored, "cpu"), of(derived, "cpu"), strict=True)]
        rows_count = setup["entity_rows"] / 1_000_000
        more = [seconds / rows_count for seconds in more]
        goals.append(goal_row("CPU time of the churn plugin per million rows", more, PLUGIN_SECONDS, " s"))
    if goals:
        text += "\n## Goals\n\n" + table(["measurement", "goal", "measured", "met"], goals)
    return text


def engine_table(engines: dict[str, Any]) -> str:
    rows = []
    for name, engine in engines.items():
        best = [(measured, engines.get(best_duckdb(engines, measured))) for measured in ("cpu", "peak")]
        to_duckdb = [spread(ratios(engine, form, measured), 2) if form else "" for measured, form in best]
        rows.append(
            [
                name,
                *(spread(of(engine, measured), digits) for measured, digits in (("wall", 1), ("cpu", 1), ("peak", 0))),
                *to_duckdb,
                f"{engine['missing_rows']:,}",
                f"{engine['differing_cells']:,}",
                "kept" if engine["in_order"] else "lost",
            ]
        )
    headings = ["engine", "wall s", "CPU s", "peak MiB", "CPU to DuckDB", "peak to DuckDB"]
    return table([*headings, "missing rows", "differing cells", "order"], rows)


def join_goals(engines: dict[str, Any]) -> list[list[str]]:
    larder = engines["larder"]
    goals = []
    for measured, engine, most in GOALS:
        engine = best_duckdb(engines, measured) if engine == "duckdb" else engine
        if engine in engines:
            found = ratios(larder, engines[engine], measured)
            goals.append(goal_row(f"{LABELS[measured]}, relative to {engine}", found, most))
    wrong = larder["missing_rows"] + larder["differing_cells"]
    goals.append(["missing rows and differing cells", "0", f"{wrong:,}", "**no**" if wrong else "yes"])
    return goals
