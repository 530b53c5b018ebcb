"""The native module. Use the classes and functions of the package `larder` instead."""

from typing import Any, final

from ._types import Decoder

__all__ = ["ArrowTable", "OfflineProject", "OnlineClient", "TrainingPlan", "TrainingSet", "__version__", "compile_plugin"]

__version__: str

@final
class ArrowTable:
    @property
    def column_names(self) -> list[str]: ...
    @property
    def num_rows(self) -> int: ...
    def select(self, names: list[str]) -> ArrowTable: ...
    def values(self, name: str) -> list[Any]: ...
    def numpy(self, name: str) -> tuple[str, bytearray] | tuple[None, list[Any]]: ...
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class OfflineProject:
    def __new__(
        cls, config: str | None, feast_repo: str | None, compiler: str, compiler_args: list[str]
    ) -> OfflineProject: ...
    def definitions(self) -> dict[str, Any]: ...
    def warnings(self) -> list[str]: ...
    def server_url(self) -> str: ...
    def training_set(
        self,
        entities: object,
        service: str | None,
        features: list[str],
        full_feature_names: bool,
        timestamp_column: str,
        known_at: str,
        ttl: str,
        event_timestamps: bool,
        strict: bool,
        memory: int | str | None,
        threads: int | None,
    ) -> TrainingSet: ...
    def backfill(
        self,
        view: str,
        start: int,
        end: int,
        out: str,
        memory: int | str | None,
        threads: int | None,
    ) -> list[tuple[str, int, dict[str, Any]]]: ...
    def plan(
        self,
        columns: object,
        is_derived: bool,
        service: str | None,
        features: list[str],
        full_feature_names: bool,
        timestamp_column: str,
        known_at: str,
        ttl: str,
        event_timestamps: bool,
        strict: bool,
        memory: int | str | None,
        threads: int | None,
    ) -> TrainingPlan: ...
    def derived_set(
        self,
        frame: object,
        service: str | None,
        features: list[str],
        full_feature_names: bool,
        timestamp_column: str,
        strict: bool,
    ) -> TrainingSet: ...

@final
class TrainingPlan:
    def inputs(self) -> str: ...
    def differences(self, inputs: str) -> list[str]: ...
    def run(self, rows: object) -> TrainingSet: ...
    def keys(self) -> list[list[int]]: ...
    def with_buckets(self, key: int, buckets: int, entities: object) -> TrainingSet: ...
    def feature_rows(self, read: int, part: int, parts: int, buckets: int) -> TrainingSet: ...
    def find(self, key: int, entities: object, features: object) -> ArrowTable: ...
    def answer(self, found: object) -> TrainingSet: ...
    def shuffled_schemas(self, key: int, entities: object) -> list[ArrowTable]: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class TrainingSet:
    def next_batch(self) -> ArrowTable | None: ...
    def collect(self) -> ArrowTable: ...
    def write_parquet(self, path: str) -> None: ...
    def report(self) -> dict[str, Any] | None: ...
    def manifest(self) -> dict[str, Any] | None: ...
    def __arrow_c_schema__(self) -> object: ...

def compile_plugin(
    parent: int, cpu_seconds: int, memory_bytes: int, threads: int, keep_functions: bool
) -> int: ...
@final
class OnlineClient:
    def __new__(
        cls,
        url: str,
        token: str | None,
        timeout: float,
        ca: str | None,
        identity: tuple[str, str] | None,
        connect_retries: int,
        max_response_bytes: int,
    ) -> OnlineClient: ...
    def lookup(
        self,
        start: bytes,
        entities: dict[str, Any],
        decoders: dict[str, Decoder],
        timeout: float | None,
    ) -> tuple[list[str], list[list[Any]], list[list[str]], list[list[str]], str | None]: ...
    def lookup_arrow(
        self, start: bytes, entities: dict[str, Any], timeout: float | None
    ) -> tuple[ArrowTable, str | None]: ...
    def catalog(self, timeout: float | None) -> dict[str, Any]: ...
