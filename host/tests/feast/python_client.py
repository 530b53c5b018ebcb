"""Compares the values of Larder's Python package with those of Feast's client, for each declared type.

Feast materializes Parquet files with each kind of column to its SQLite store. Larder serves the same store. For each value
that the two serve alike in JSON, `get_online_features(...).to_dict()` of both clients must return equal objects of the same
Python types. The package is compared with JSON and with Arrow responses.

Usage: python_client.py LARDER DIR PLUGINS
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import larder
import pyarrow as pa
import pyarrow.parquet as pq
from values import AT, ROWS, TYPES, Feast, columns, feast_takes, same, served
from world import Checks, environment, larder_server


# Values that differ on purpose: times and bytes within maps and structs have the form that they have in JSON, because the
# catalog does not have their types.
UNTYPED = {("Map", "c_struct_deep"), ("Struct", "c_struct_deep")}


def typed(value: Any) -> Any:
    """Returns a text that differs for values of different types. Ignores the order of sets."""
    if isinstance(value, set):
        return ["set", *sorted(map(repr, value))]
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return repr(value)


def main() -> None:
    program, base = sys.argv[1], Path(sys.argv[2])
    os.environ.update(environment())
    # Feast logs each value that it rejects.
    logging.disable(logging.CRITICAL)
    checks, feast, odd = Checks(), Feast(base / "repo"), columns()
    keys = list(range(1, ROWS + 1))
    head = {"k": pa.array(keys), "event_timestamp": pa.array([AT] * ROWS, pa.timestamp("us"))}
    views = {}
    for place, (declared, dtype) in enumerate(TYPES.items()):
        taken = {name: array for name, array in odd.items() if feast_takes(pa.table({"f": array}).to_pandas(), dtype)}
        path = base / f"repo/data/file_{place}.parquet"
        # Names of features must not be names of types.
        fields = {f"c_{name}": array for name, array in taken.items()}
        pq.write_table(pa.table(head | fields), path)
        views[declared] = feast.view(f"file_{place}", path, dict.fromkeys(fields, dtype), pushed=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        feast.store.apply([feast.entity, *views.values()])
        feast.store.materialize(datetime(2020, 1, 1), datetime(2026, 11, 2))
    server = larder_server(program, base / "repo", None).until_healthy("/ready")
    store = larder.FeatureStore(url=server.url)
    compared = 0
    for declared, view in views.items():
        names = [field.name for field in view.features]
        references = [f"{view.name}:{name}" for name in names]
        in_json, of_feast = served(server, view.name, names, keys), feast.values(view, keys)
        alike = [name for name in names if same(declared, in_json[name], of_feast[name])]
        alike = [name for name in alike if (declared, name) not in UNTYPED]
        compared += len(alike)
        checks.true(f"{declared}: values that are served alike", bool(alike), in_json)
        rows = [{"k": key} for key in keys]
        try:
            theirs = feast.store.get_online_features(features=references, entity_rows=rows).to_dict()
        except Exception:  # noqa: BLE001: Feast's client cannot read some values that it stores
            theirs = {"k": keys}
            for name in list(alike):
                try:
                    theirs |= feast.store.get_online_features([f"{view.name}:{name}"], rows).to_dict()
                except Exception:  # noqa: BLE001
                    alike.remove(name)
        for form in ("JSON", "Arrow"):
            ours = store.get_online_features(references, rows, columnar=form == "Arrow").to_dict()
            for name in ["k", *alike]:
                checks.equal(f"{declared}, {name}, {form}", typed(ours[name]), typed(theirs[name]))
    server.kill()
    checks.true("enough values are compared", compared > 500, compared)
    checks.end()


if __name__ == "__main__":
    main()
