"""Writes the workload that measures the churn plugin: entity rows, and the files of the definitions in `configs/features`.

Usage: churn.py DIR ENTITY_ROWS IDS CONFIGS PLUGIN

Each customer has one row in each file, which is valid for all entity rows.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from workload import DAY, DAYS, START, TIME

CONTRACTS = ["Month-to-month", "One year", "Two year"]


def write(directory: Path, rows: int, ids: int, configs: Path, plugin: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("features", "data", "plugins"):
        (directory / name).mkdir(parents=True)
    for name in ("churn.yaml", "churn_derived.yaml"):
        shutil.copy(configs / name, directory / "features" / name)
    shutil.copy(plugin, directory / "plugins" / "customer_derived_features.wasm")
    (directory / "larder.yaml").write_text("plugins: {dir: plugins}\n")
    random = np.random.default_rng(0)
    names = pa.array([f"CUST_{number:06}" for number in range(ids)])

    def instants(micros: np.ndarray) -> pa.Array:
        return pa.array(micros).cast(pa.timestamp("us")).cast(TIME)

    def view(file: str, features: dict[str, pa.Array]) -> None:
        event = instants(np.full(ids, START))
        columns = {"customer_id": names, "event_timestamp": event, "created": event, **features}
        pq.write_table(pa.table(columns), directory / "data" / f"{file}.parquet", compression="snappy")

    def ints(most: int) -> pa.Array:
        return pa.array(random.integers(0, most, ids))

    def floats(most: float) -> pa.Array:
        return pa.array(random.random(ids) * most)

    def texts(values: list[str]) -> pa.Array:
        return pa.array(values).take(pa.array(random.integers(0, len(values), ids)))

    behavior = {"tenure_months": ints(72), "monthly_charges": floats(120), "total_charges": floats(8_000)}
    behavior |= {"support_tickets_30d": ints(5), "data_usage_gb": floats(900)}
    view("customer_features", behavior)
    demographics = {"age": ints(90), "gender": texts(["Female", "Male"]), "location": texts(["North", "South"])}
    view("customer_demographics", demographics | {"senior_citizen": pa.array(random.random(ids) < 0.2)})
    contract = {"contract_type": texts(CONTRACTS), "payment_method": texts(["Bank transfer", "Credit card"])}
    view("customer_contract", contract | {"paperless_billing": pa.array(random.random(ids) < 0.5)})
    entities = {
        "customer_id": names.take(pa.array(random.integers(0, ids, rows))),
        # The behavior is valid for 30 days.
        "event_timestamp": instants(random.integers(START, START + (DAYS - 3) * DAY, rows)),
        "discount_percent": pa.array(random.random(rows) * 30),
    }
    pq.write_table(pa.table(entities), directory / "entities.parquet", compression="snappy")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
