"""The shape of the workload. This module imports no library, so that an engine's process only loads its own."""

from __future__ import annotations

from pathlib import Path

VIEWS = 3
FEATURES = 5
TTL_DAYS = 7


def feature_names(view: int) -> list[str]:
    return [f"v{view}_f{feature}" for feature in range(FEATURES)]


def view_path(directory: Path, view: int) -> Path:
    return directory / f"view_{view}" / "rows.parquet"
