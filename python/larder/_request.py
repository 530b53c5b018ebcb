"""Requests that other processes run: the workers of Spark and Ray.

A request has a `SetRequest`, and describes the definitions, plugins and feature files of the
process that created it. A worker opens the same configuration, and compares its own definitions, plugins and files with this
description.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._default import get_feature_store_client
from ._errors import ConfigError, LarderError, RequestError, TrainingError
from ._set_request import SetRequest
from ._settings import open_project
from ._store import FeatureStore

if TYPE_CHECKING:
    import pyarrow

    from ._native import TrainingPlan

# The plans that a process keeps. Each has its compiled plugins.
PLANS_MAX = 8
INTERNAL_PREFIX = "__larder_"

_lock = threading.Lock()
_plans: OrderedDict[tuple[Request, bytes, int], TrainingPlan] = OrderedDict()


@dataclass(frozen=True)
class Request:
    """A request for a training set or for derived features. Can be sent to other processes.

    Attributes:
        config: The path of `larder.yaml` on the worker.
        feast_repo: The directory of the Feast repository on the worker.
        set_request: The request of the set.
        inputs: The definitions, plugins and feature files that the worker must have. Empty in a request that `on_driver` has not returned.
    """

    config: str | None
    feast_repo: str | None
    set_request: SetRequest
    inputs: str = ""

    @classmethod
    def of(cls, store: FeatureStore | None, set_request: SetRequest) -> Request:
        """Returns a request with the definitions of a store. By default, this is the store of the module functions.

        Raises:
            ConfigError: The store has no definitions.
        """
        settings = (store or get_feature_store_client())._settings
        if not settings.has_definitions:
            raise ConfigError("the store has no definitions. hint: use FeatureStore('larder.yaml') or feast_repo=")
        return cls(settings.config, settings.feast_repo, set_request)

    def resolve(self, columns: pyarrow.Schema) -> TrainingPlan:
        """Opens the configuration, and resolves the request for rows with these columns.

        Raises:
            ConfigError: The configuration cannot be read.
            TrainingError: The request cannot be resolved.
        """
        return open_project(self.config, self.feast_repo).plan(columns.empty_table(), self.set_request)


def on_driver(
    request: Request, columns: pyarrow.Schema, worker_config: str | os.PathLike[str] | None
) -> tuple[Request, TrainingPlan]:
    """Resolves a request in the process that distributes it. Returns the request for the workers, and the plan.

    Args:
        worker_config: The path of `larder.yaml` (or of the Feast repository) on the workers, if it differs.

    Raises:
        RequestError: A column has a reserved name, or `worker_config` is not a path.
        ConfigError: The configuration cannot be read.
        TrainingError: The request cannot be resolved.
    """
    for name in columns.names:
        if name.startswith(INTERNAL_PREFIX):
            raise RequestError(
                f"column '{name}': names that start with '{INTERNAL_PREFIX}' are reserved. hint: rename the column"
            )
    if worker_config is not None and not (isinstance(worker_config, (str, os.PathLike)) and os.fspath(worker_config)):
        raise RequestError(
            f"worker_config: {worker_config!r} is not a path. hint: omit worker_config if the workers use the path of the driver"
        )
    path = None if worker_config is None else os.fspath(worker_config)
    plan = request.resolve(columns)
    return (
        dataclasses.replace(
            request,
            config=request.config if request.config is None else path or request.config,
            feast_repo=request.feast_repo if request.config is not None else path or request.feast_repo,
            inputs=plan.inputs(),
        ),
        plan,
    )


def on_worker(request: Request, columns: pyarrow.Schema, *, reads_files: bool) -> TrainingPlan:
    """Returns the plan of a request in a worker. A process keeps its last plans, so it compiles a plugin once.

    Args:
        reads_files: Whether the caller reads feature files. They are then compared again, also for a plan that was kept.

    Raises:
        ConfigError: The configuration cannot be read on this machine.
        TrainingError: The definitions, the plugins or the feature files differ from those of the driver.
    """
    import pyarrow

    # All steps of a distributed join have the same plan.
    columns = pyarrow.schema([field for field in columns if not field.name.startswith(INTERNAL_PREFIX)])
    # After a fork, the threads of the parent's plans do not exist.
    key = (request, columns.serialize().to_pybytes(), os.getpid())
    with _lock:
        plan = _plans.get(key)
        try:
            is_new = plan is None
            if plan is None:
                _check_path(request)
                plan = request.resolve(columns)
            differences = plan.differences(request.inputs) if is_new or reads_files else []
        except LarderError as error:
            raise type(error)(f"machine '{socket.gethostname()}': {error}") from None
        if not differences:
            _plans[key] = plan
            _plans.move_to_end(key)
        while len(_plans) > PLANS_MAX:
            _plans.popitem(last=False)
    if differences:
        raise TrainingError(
            f"machine '{socket.gethostname()}': inputs differ from those of the driver: {'; '.join(differences)}. hint: copy the "
            "configuration, the definitions, the plugins and the feature files to all machines, with their modification times"
        )
    return plan


def _check_path(request: Request) -> None:
    path = request.config or request.feast_repo
    if path is not None and not os.path.exists(path):
        raise ConfigError(
            f"{path} does not exist. hint: copy the configuration, the definitions and the plugins to all machines, and set "
            "'worker_config' if their path differs"
        )
