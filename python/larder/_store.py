"""The feature store: the entry point of the package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._async import AsyncCalls
from ._catalog import Catalog, FeatureService, FeatureView
from ._errors import ConfigError, RequestError
from ._online import Lookups, entity_columns
from ._response import OnlineResponse
from ._set_request import SetRequest, selection
from ._settings import ASYNC_CALLS, MAX_RESPONSE_BYTES, FilePath, Settings

if TYPE_CHECKING:
    from ._native import OfflineProject
    from ._training import BackfillFile, RetrievalJob


@dataclass(frozen=True)
class FeatureProblem:
    """A value that a model should not use.

    Attributes:
        row: The index of the entity's row.
        feature: The name of the feature.
        status: `NOT_FOUND`, `OUTSIDE_MAX_AGE`, `INVALID`, or `NULL`.
    """

    row: int
    feature: str
    status: str


class FeatureStore:
    """The features of a project.

    Threads may share a store. A process may fork while it has a store: the child opens its own connections, and reads the
    definitions again when it builds a training set.

    A store can be pickled, for example for `multiprocessing`, joblib or Ray. The other process reads the configuration again and
    opens its own connections. The pickle has the arguments of the store, with absolute paths, and the address of `LARDER_URL`. It
    has `token` if you passed one, but not `LARDER_TOKEN`, which the other process reads from its environment.

    Args:
        config: The path of `larder.yaml`. By default, the environment variable `LARDER_CONFIG`, or `larder.yaml` if no
            other argument names a project or a server.
        feast_repo: The directory of a Feast repository (`feature_store.yaml`), instead of `config`.
        url: The address of the server for lookups: `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`. By default,
            the environment variable `LARDER_URL`, or the address in the configuration.
        token: The bearer token of the server. By default, the environment variable `LARDER_TOKEN`.
        timeout: The maximum time of a call, in seconds. It includes connecting and retries.
        ca: A PEM file with the certificate authorities of the server. By default, the authorities of the system.
        client_certificate: A PEM file with the client's certificate, if the server requires one.
        client_key: A PEM file with the key of `client_certificate`.
        connect_retries: How often connecting is retried. Other errors are not retried, except that a request is sent once
            more if the server has closed an idle connection.
        max_response_bytes: The maximum size of a response.
        async_calls: The maximum number of calls of `get_online_features_async` that run at the same time, each in a thread.

    Raises:
        ConfigError: An argument is invalid, or a PEM file cannot be used.
    """

    def __init__(
        self,
        config: FilePath | None = None,
        *,
        feast_repo: FilePath | None = None,
        url: str | None = None,
        token: str | None = None,
        timeout: float = 5.0,
        ca: FilePath | None = None,
        client_certificate: FilePath | None = None,
        client_key: FilePath | None = None,
        connect_retries: int = 2,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        async_calls: int = ASYNC_CALLS,
    ) -> None:
        self._open(
            Settings.resolve(
                config,
                feast_repo,
                url,
                token,
                timeout,
                ca,
                client_certificate,
                client_key,
                connect_retries,
                max_response_bytes,
                async_calls,
            )
        )

    def _open(self, settings: Settings) -> None:
        self._settings = settings
        self._project = settings.open_project() if settings.has_definitions else None
        self._process = os.getpid()
        url = settings.url
        if url is None and self._project is not None:
            url = self._project.server_url()
        self._url = url or ""
        definitions = None if self._project is None else Catalog(self._project.definitions())
        self._lookups = Lookups(settings.connect(self._url), definitions)
        self._async_calls = AsyncCalls(settings.async_calls)

    def __getstate__(self) -> Settings:
        return self._settings

    def __setstate__(self, settings: Settings) -> None:
        self._open(settings)

    def __repr__(self) -> str:
        paths = {"config": self._settings.config, "feast_repo": self._settings.feast_repo, "url": self._url}
        parts = [f"{name} '{path}'" for name, path in paths.items() if path]
        if (definitions := self._lookups.definitions) is not None:
            parts.append(f"feature views: {len(definitions.views)}, feature services: {len(definitions.services)}")
        return f"<larder.FeatureStore: {', '.join(parts)}>"

    def _offline(self) -> OfflineProject:
        """Returns the definitions and plugins of the configuration.

        Raises:
            ConfigError: The store has no definitions.
        """
        if self._project is None:
            raise ConfigError("the store has no definitions. hint: use FeatureStore('larder.yaml') or feast_repo=")
        if self._process != os.getpid():
            # After a fork, the threads that plugins and S3 need exist only in the parent process.
            self._project = self._settings.open_project()
            self._process = os.getpid()
        return self._project

    def get_historical_features(
        self,
        entity_df: Any,
        features: list[str] | Any | None = None,
        full_feature_names: bool = False,
        *,
        feature_service: str | None = None,
        known_at: str = "event",
        ttl: str = "null",
        event_timestamps: bool = False,
        timestamp_column: str = "event_timestamp",
        strict: bool = False,
        memory: int | str | None = None,
        threads: int | None = None,
    ) -> RetrievalJob:
        """Joins entity rows with the feature values that were valid at their times.

        Args:
            entity_df: The entity rows: a pandas or polars data frame, a pyarrow table, another object with `__arrow_c_stream__`, or
                the path of a Parquet file or of a directory of such files, or an `s3://` URL as a `str`. It has the join keys, the request inputs of
                derived features, and the times. Other columns, such as labels, are copied.
            features: References as `VIEW:FEATURE`, or a feature service, as in Feast.
            full_feature_names: Whether features are named `VIEW__FEATURE`.
            feature_service: The name of a feature service, instead of `features`.
            known_at: When a feature row becomes visible: `event`, at its event time, or `created`, at the later of its event
                time and its created time.
            ttl: How to treat a value that is older than its view's ttl at the entity row's time: `null`, as null; `ignore`,
                as any other value; `mark`, as any other value, and with a column `NAME__status` after each feature.
            event_timestamps: Whether a column `NAME__event_timestamp` follows each stored feature.
            timestamp_column: The column of the entity rows' times. Times without a zone are in UTC.
            strict: Whether an entity row without a time or a key is an error. Otherwise, its features are null.
            memory: The memory for entity rows and their features: bytes, or text such as `"2GiB"`, which is the default. Rows
                that do not fit are joined in parts.
            threads: The number of threads. By default, the number of processors.

        Returns:
            A job, which reads the feature files when its rows are read: `to_df`, `to_arrow`, `to_polars`, `to_batches` and
            `to_parquet`.

        Raises:
            ConfigError: The store was created with `url` only, so it has no definitions.
            RequestError: An argument is invalid.
            TrainingError: A feature does not exist, a column is missing, or the type of a column does not match.
        """
        request = SetRequest(
            selection(features, feature_service),
            full_feature_names,
            timestamp_column,
            strict,
            known_at=known_at,
            ttl=ttl,
            event_timestamps=event_timestamps,
            memory=memory,
            threads=threads,
        )
        return self._job(entity_df, request)

    def _job(self, rows: Any, request: SetRequest) -> RetrievalJob:
        from ._training import RetrievalJob

        path = os.fspath(rows) if isinstance(rows, (str, os.PathLike)) else rows
        return RetrievalJob(lambda: self._offline().training_set(path, request), str(request))

    def backfill(
        self,
        view: str,
        start: datetime | str,
        end: datetime | str,
        out: FilePath,
        *,
        memory: int | str | None = None,
        threads: int | None = None,
    ) -> list[BackfillFile]:
        """Computes the features of a derived view over the history of the stored features that it reads.

        Ctrl-C stops the run. An interrupted or failed run leaves no half-written file.

        Args:
            view: The name of a derived view without request inputs.
            start: Compute the features at times from this one on: a `datetime`, which is in UTC if it has no zone, or text such
                as `"2026-01-31"` or `"2026-01-31T10:00:00Z"`.
            end: Compute the features at times before this one.
            out: The directory of the files, which is created if it does not exist, or an `s3://` URL as a `str`. It gets one file
                for each stored view that has all join keys.
            memory: The memory for rows: bytes, or text such as `"2GiB"`, which is the default.
            threads: The number of threads. By default, the number of processors.

        Returns:
            The files that were written.

        Raises:
            ConfigError: The store was created with `url` only, so it has no definitions.
            RequestError: An argument is invalid.
            TrainingError: The view cannot be backfilled, or a file cannot be read or written.
        """
        from ._training import BackfillFile, microseconds

        first, last = microseconds("start", start), microseconds("end", end)
        if first >= last:
            raise RequestError(f"start: {start} is not before the end, {end}")
        files = self._offline().backfill(view, first, last, os.fspath(out), memory, threads)
        return [BackfillFile(path if "://" in path else Path(path), rows, report) for path, rows, report in files]

    def apply_derived(
        self,
        frame: Any,
        features: list[str] | Any | None = None,
        full_feature_names: bool = False,
        *,
        feature_service: str | None = None,
        timestamp_column: str = "event_timestamp",
        strict: bool = False,
    ) -> RetrievalJob:
        """Computes derived features of a frame that already has the stored features. Reads no feature files.

        The values equal those of `get_historical_features`, if the stored features do.

        Args:
            frame: The rows, in one of the forms of `entity_df` of `get_historical_features`. It has the stored features that
                the plugins read, under the names that `get_historical_features` gives them with the same arguments, the
                times, the request inputs, and the join keys that a plugin reads.
            features: References of derived features as `VIEW:FEATURE`, or a feature service. Stored features are ignored.
            full_feature_names: Whether features are named `VIEW__FEATURE`: both the stored features in the frame and the
                derived features.
            feature_service: The name of a feature service, instead of `features`.
            timestamp_column: The column of the times, which plugins can read. Rows without a time get nulls.
            strict: Whether a row without a time is an error.

        Returns:
            A job: the columns of the frame, then the derived features. It has no manifest.

        Raises:
            ConfigError: The store was created with `url` only, so it has no definitions.
            RequestError: An argument is invalid.
            TrainingError: A feature or a plugin does not exist, or a column is missing or has another type.
        """
        selected = selection(features, feature_service)
        return self._job(frame, SetRequest.derived(selected, full_feature_names, timestamp_column, strict))

    def get_online_features(
        self,
        features: list[str] | str | Any | None = None,
        entity_rows: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        full_feature_names: bool = False,
        *,
        feature_service: str | None = None,
        entities: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        columnar: bool = False,
        timeout: float | None = None,
    ) -> OnlineResponse:
        """Looks up the current values of features from the server.

        Args:
            features: References as `VIEW:FEATURE`, or a feature service, as in Feast.
            entity_rows: The same as `entities`, under the name that Feast uses.
            full_feature_names: Whether columns are named `VIEW__FEATURE`.
            feature_service: The name of a feature service, instead of `features`.
            entities: A list of values for each join key and for each request input of derived features:
                `{"customer_id": ["CUST_000123"]}`. All lists have the same length. It can also be a data frame of pandas or
                polars, another object with `__arrow_c_stream__` such as a `pyarrow.Table`, or a list of mappings, one per row.
                Values are `str`, `int`, `float`, `bool`, None, `datetime` (without a zone: UTC), UTF-8 `bytes`, `UUID`,
                `Decimal`, NumPy scalars, and lists of these. NaN, `pandas.NA` and NaT are nulls.
            columnar: Request an Arrow response, which is faster in `to_arrow` and `to_polars`, and for some hundred rows or more in
                `to_numpy`.
            timeout: The maximum time of the call, in seconds, instead of the store's.

        Returns:
            The response, with one row per entity, in the order of the request.

        Raises:
            RequestError: The server rejected the request, for example because a feature does not exist.
            ConnectionError: The server cannot be reached.
            Timeout: The call took longer than `timeout`.
            ResponseError: The response is invalid or too large.
        """
        service, references = selection(features, feature_service)
        if entities is None:
            entities = entity_rows
        elif entity_rows is not None:
            raise RequestError("entities and entity_rows are the same argument. hint: use only one of them")
        if entities is None:
            raise RequestError("no entities are given. hint: use entities={'KEY': [VALUE, ...]}")
        columns = entity_columns(entities)
        return self._lookups.get(service, references, columns, full_feature_names, columnar, timeout)

    async def get_online_features_async(
        self,
        features: list[str] | str | Any | None = None,
        entity_rows: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        full_feature_names: bool = False,
        *,
        feature_service: str | None = None,
        entities: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        columnar: bool = False,
        timeout: float | None = None,
    ) -> OnlineResponse:
        """Like `get_online_features`, for coroutines.

        The call runs in a thread, which waits without holding the interpreter. At most `async_calls` calls of the store run at the
        same time. Further calls wait, and this time counts toward `timeout`. If the coroutine is cancelled, a waiting call is
        not sent; a running call continues in its thread until the response or the timeout.

        Raises:
            Timeout: The call took longer than `timeout`, or no thread was free within `timeout`.
        """

        def call(remaining: float) -> OnlineResponse:
            return self.get_online_features(
                features,
                entity_rows,
                full_feature_names,
                feature_service=feature_service,
                entities=entities,
                columnar=columnar,
                timeout=remaining,
            )

        return await self._async_calls.run(call, self._settings.timeout if timeout is None else timeout)

    def _catalog(self) -> Catalog:
        return self._lookups.definitions or self._lookups.catalog()

    def list_feature_views(self) -> list[FeatureView]:
        """Returns the feature views, then the derived views: those of the configuration, or of the server."""
        return self._catalog().views

    def list_feature_services(self) -> list[FeatureService]:
        """Returns the feature services."""
        return self._catalog().services

    def get_feature_service_features(self, name: str) -> list[str]:
        """Returns the references of a service's features, as `VIEW:FEATURE`.

        Raises:
            RequestError: There is no such service.
        """
        return self._catalog().service(name).features

    def validate_features(
        self,
        rows: Mapping[str, Any] | Iterable[Mapping[str, Any]],
        features: list[str] | str | Any | None = None,
        *,
        feature_service: str | None = None,
        allow_nulls: bool = True,
    ) -> list[FeatureProblem]:
        """Looks up features of entities, and returns the values that are missing, expired or invalid.

        It checks what `larder verify` checks.

        Args:
            rows: The entities, as in `get_online_features`.
            features: References as `VIEW:FEATURE`.
            feature_service: The name of a feature service, instead of `features`. Without both, the service whose inputs
                are the columns of `rows`.
            allow_nulls: Whether values may be null.
        """
        columns = entity_columns(rows)
        if features is None and feature_service is None:
            feature_service = self.service_for(columns)
        response = self.get_online_features(features, feature_service=feature_service, entities=columns)
        problems = []
        values = response.to_dict()
        for name, statuses in response.statuses.items():
            for row, (status, value) in enumerate(zip(statuses, values[name])):
                if status != "PRESENT":
                    problems.append(FeatureProblem(row, name, status))
                elif value is None and not allow_nulls and name not in columns:
                    problems.append(FeatureProblem(row, name, "NULL"))
        return sorted(problems, key=lambda problem: problem.row)

    def service_for(self, columns: Iterable[str]) -> str:
        """Returns the name of the feature service whose inputs are these columns.

        If there are several, the result is the one whose name ends with `_online`.

        Raises:
            RequestError: No service has these inputs, or several services have them.
        """
        wanted = set(columns)
        found = [service.name for service in self.list_feature_services() if service.inputs.keys() == wanted]
        online = [name for name in found if name.endswith("_online")]
        for candidates in (found, online):
            if len(candidates) == 1:
                return candidates[0]
        names = ", ".join(f"'{name}'" for name in sorted(wanted))
        if not found:
            raise RequestError(f"no feature service has the inputs {names}. hint: set 'feature_service'")
        services = ", ".join(f"'{name}'" for name in found)
        raise RequestError(f"several feature services have the inputs {names}: {services}. hint: set 'feature_service'")

