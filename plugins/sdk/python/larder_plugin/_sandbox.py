"""Replaces functions that cannot work in a component with functions that raise errors.

A component has no clock, randomness, threads, network, processes or files, and can only import modules that were
imported while it was built. The interpreter ends the instance with a trap if it needs one of these, without the line in
the plugin. An exception has the line, and fails only one row.
"""

from __future__ import annotations

import builtins
import codecs
import datetime
import faulthandler
import gc
import io
import linecache
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NoReturn

from ._modules import LAZY, never
from ._replacing import Replacements, Unavailable, disabled, replace_method
from ._trace import STDLIB

CLOCK = "a plugin has no clock. hint: use context.as_of, the reference time of the row"
RANDOMNESS = (
    "a plugin has no randomness, because the same inputs must give the same result. hint: use random.Random(seed) with "
    "a seed from the inputs"
)
THREADS = "a plugin has one thread. hint: call the function directly"
NETWORK = "a plugin has no network. hint: pass the data as inputs"
PROCESSES = "a plugin cannot start or end processes. hint: call a Python function instead"
SIGNALS = "a plugin has no signals. hint: remove the call"
INPUT = "a plugin has no standard input. hint: pass the data as inputs"
FILES = "a deployed plugin has no files. hint: read them at the top of a module, which runs while the plugin is built"
ENVIRONMENT = "a plugin has no environment variables. hint: use the config of the derived view"
PROFILING = "a plugin cannot be profiled or debugged. hint: profile or debug the function in a unit test"

_FRAMES_MAX = 80
"""The maximum number of nested calls in a deployed plugin.

The host gives an instance a stack of 256 KiB, and an overflow ends the instance. CPython does not know this limit. A
call of a Python function by a built-in function, such as ``sorted(..., key=f)``, needs up to 2.7 KiB of it.
"""


# === Functions that raise errors while the plugin is imported, and in a deployed plugin ===

_CLOCKS = {
    time: (
        "clock_getres clock_gettime clock_gettime_ns clock_settime get_clock_info monotonic monotonic_ns perf_counter "
        "perf_counter_ns process_time process_time_ns sleep thread_time thread_time_ns time time_ns"
    ),
    os: "getloadavg times",
}
_PROCESSES = {
    os: (
        "_exit abort execl execle execlp execlpe execv execve execvp execvpe fork forkpty kill killpg popen "
        "posix_spawn posix_spawnp spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe system wait wait3 wait4 waitid "
        "waitpid"
    ),
}
if sys.platform != "wasi":
    # Another interpreter, which checks the plugin before a build, can start processes.
    _PROCESSES[import_module("_posixsubprocess")] = "fork_exec"
_SIGNALS = {
    signal: "alarm pause pthread_kill raise_signal set_wakeup_fd setitimer siginterrupt signal sigwait sigtimedwait",
    sys.modules["_thread"]: "interrupt_main",
}
_THREADS = {sys.modules["_thread"]: "start_joinable_thread start_new start_new_thread"}
_NETWORK = {
    sys.modules["_socket"]: (
        "CMSG_LEN close dup getaddrinfo gethostbyaddr gethostbyname gethostbyname_ex gethostname getnameinfo "
        "getprotobyname getservbyname getservbyport if_indextoname if_nameindex if_nametoindex sethostname socketpair"
    ),
    select: "epoll kqueue poll select",
}
_INPUT = {builtins: "input"}
_PROFILING = {builtins: "breakpoint"}


def _with_time(name: str, position: int) -> Callable[..., Any]:
    """Wraps a function of `time` that reads the clock if an argument is missing."""
    original = getattr(time, name)

    def checked(*args: Any) -> Any:
        if len(args) <= position or args[position] is None:
            raise Unavailable(f"time.{name}() without a time: {CLOCK}")
        return original(*args)

    return checked


def _seeded(original: Callable[..., None]) -> Callable[..., None]:
    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None:
            raise Unavailable(f"random.Random() without a seed: {RANDOMNESS}")
        original(self, a, version)

    return seed


def _classes() -> Iterator[tuple[type, str, str]]:
    """Yields methods to replace: the class, the method and the reason. Only of modules that are imported."""
    yield datetime.date, "today", CLOCK
    yield datetime.datetime, "now", CLOCK
    yield datetime.datetime, "utcnow", CLOCK
    yield threading.Thread, "start", THREADS
    yield socket.socket, "__init__", NETWORK
    for module, name, method, why in (
        ("subprocess", "Popen", "__init__", PROCESSES),
        ("asyncio", "Runner", "__init__", THREADS),
        ("asyncio", "BaseEventLoop", "__init__", THREADS),
        ("concurrent.futures.thread", "ThreadPoolExecutor", "__init__", THREADS),
        ("concurrent.futures.process", "ProcessPoolExecutor", "__init__", THREADS),
        ("multiprocessing.process", "BaseProcess", "start", THREADS),
        ("multiprocessing.pool", "Pool", "__init__", THREADS),
        ("multiprocessing.queues", "Queue", "__init__", THREADS),
        ("multiprocessing.managers", "BaseManager", "start", THREADS),
        ("cProfile", "Profile", "__init__", PROFILING),
    ):
        if module in sys.modules:
            yield getattr(sys.modules[module], name), method, why


class Sandbox:
    """The replaced functions. Creating it replaces the ones that cannot work even while the plugin is imported."""

    def __init__(self) -> None:
        now = Replacements()
        for why, functions in (
            (CLOCK, _CLOCKS),
            (PROCESSES, _PROCESSES),
            (SIGNALS, _SIGNALS),
            (THREADS, _THREADS),
            (NETWORK, _NETWORK),
            (INPUT, _INPUT),
            (PROFILING, _PROFILING),
            (RANDOMNESS, {os: "getrandom urandom"}),
            (RANDOMNESS, {random: " ".join(_shared_random()), sys.modules["_random"]: "Random"}),
        ):
            for module, names in functions.items():
                for name in names.split():
                    now.disable(module, name, why)
        for name, position in (("asctime", 0), ("ctime", 0), ("gmtime", 0), ("localtime", 0), ("strftime", 1)):
            now.add(time, name, _with_time(name, position))
        self._set_recursion_limit = sys.setrecursionlimit
        now.disable(sys, "setrecursionlimit", f"calls can be nested {_FRAMES_MAX} deep in a plugin. hint: use a loop")
        now.apply()
        random.Random.seed = _seeded(random.Random.seed)  # type: ignore[method-assign]
        for owner, method, why in _classes():
            replace_method(owner, method, disabled(_method(owner, method), why))

    def deployment(self) -> Callable[[], None]:
        """Prepares the deployed plugin after it was imported, and returns the function that completes this.

        The function must be fast, because each new instance calls it. The build must not call it, because it still
        reads files and imports modules.
        """
        _import_lazy_modules()
        _stop_clock_of_logging()
        for owner, method, why in _classes():
            replace_method(owner, method, disabled(_method(owner, method), why))
        _replace_locks()
        replacements = _replacements_when_deployed()

        def complete() -> None:
            replacements.apply()
            # Modules that are built into the interpreter need no files.
            sys.meta_path[2:] = [_NoMore()]
            self._set_recursion_limit(_FRAMES_MAX)

        return complete


def _method(owner: type, name: str) -> str:
    """Returns the name of a method for a message. The name of an initializer is the name of its class."""
    return owner.__name__ if name == "__init__" else f"{owner.__name__}.{name}"


def _shared_random() -> list[str]:
    """Returns the functions of `random` that use its shared generator. Its state depends on all earlier calls."""
    return [name for name in random.__all__ if hasattr(getattr(random, name), "__self__")]


def _import_lazy_modules() -> None:
    """Imports the modules that the imported ones need later."""
    for name, needed in LAZY.items():
        if name in sys.modules:
            for module in needed:
                import_module(module)
    codecs.register(_unknown_encoding)


def _stop_clock_of_logging() -> None:
    """Lets `logging` work without a clock. Each record has a time, which log lines of a plugin do not show."""
    if "logging" in sys.modules:
        clock = SimpleNamespace(**{**vars(time), "time": lambda: 0.0, "time_ns": lambda: 0})
        sys.modules["logging"].time = clock  # type: ignore[attr-defined]


def _replacements_when_deployed() -> Replacements:
    """Returns the replacements of functions that work only while the plugin is imported."""
    later = Replacements()
    posix = sys.modules["posix"]
    for name, value in vars(posix).items():
        if callable(value) and not isinstance(value, type) and name not in _WITHOUT_FILES:
            later.disable(os if hasattr(os, name) else posix, name, _ENVIRONMENTS.get(name, FILES))
    modules: tuple[tuple[Any, str, str], ...] = (
        # Some of these return a default if `os.stat` raises an error.
        (os.path, "exists isdir isfile islink ismount lexists realpath", FILES),
        (builtins, "open", FILES),
        (io, "FileIO open_code", FILES),
        (sys.modules.get("sqlite3"), "connect", FILES),
        (faulthandler, "dump_traceback dump_traceback_later enable", PROFILING),
        (gc, "set_debug", PROFILING),
    )
    for owner, names, why in modules:
        for name in names.split() if owner else ():
            later.disable(owner, name, why)
    environment = _Environment()
    later.add(os, "environ", environment)
    later.add(os, "getenv", environment.get)
    # Tracebacks have only the source lines that were stored during the build.
    later.add(linecache, "checkcache", lambda *_args: None)
    later.add(linecache, "updatecache", lambda *_args: [])
    later.add(sys, "stdin", _NoInput())
    later.prepare()
    return later


def _replace_locks() -> None:
    """Replaces methods that wait for another thread, because a plugin would wait forever."""
    lock = type(threading.Lock())
    acquire = lock.acquire

    def acquire_now(self: Any, blocking: bool = True, timeout: float = -1) -> bool:
        if acquire(self, False):
            return True
        if not blocking:
            return False
        raise Unavailable(f"Lock.acquire(): the lock is held, and no other thread can release it: {THREADS}")

    for name in ("acquire", "acquire_lock", "__enter__"):
        replace_method(lock, name, acquire_now)
    if "_queue" in sys.modules:
        queue = sys.modules["_queue"].SimpleQueue
        get = queue.get

        def get_now(self: Any, block: bool = True, timeout: float | None = None) -> Any:
            if block and self.empty():
                raise Unavailable(f"SimpleQueue.get(): the queue is empty, and no other thread can fill it: {THREADS}")
            return get(self, block)

        replace_method(queue, "get", get_now)


# === A deployed plugin ===

_WITHOUT_FILES = frozenset(
    "WCOREDUMP WEXITSTATUS WIFCONTINUED WIFEXITED WIFSIGNALED WIFSTOPPED WSTOPSIG WTERMSIG _path_normpath "
    "_path_splitroot_ex cpu_count fspath getpid getppid register_at_fork sched_yield strerror uname urandom times "
    "abort _exit".split()
)
"""The functions of `posix` that need no file, or that are replaced for another reason."""
_ENVIRONMENTS = dict.fromkeys(("putenv", "unsetenv", "_create_environ"), ENVIRONMENT)


class _Environment(MutableMapping[str, str]):
    """The environment variables. The standard library reads none; for other code, reading them is an error.

    It is no silent default, because a plugin that reads its settings there would ignore the settings of the server.
    """

    @staticmethod
    def _check() -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__name__") in ("collections.abc", "_collections_abc"):
            frame = frame.f_back
        if not frame.f_code.co_filename.startswith(STDLIB):
            raise Unavailable(f"os.environ: {ENVIRONMENT}")

    def __getitem__(self, name: str) -> str:
        self._check()
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        self._check()

    def __delitem__(self, name: str) -> None:
        self._check()
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        self._check()
        return iter(())

    def __len__(self) -> int:
        self._check()
        return 0


class _NoInput:
    """A standard input that cannot be read."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Unavailable(f"sys.stdin.{name}: {INPUT}")


class _NoMore:
    """A finder that rejects every import, with the reason in the error."""

    @staticmethod
    def find_spec(name: str, _path: Iterable[str] | None = None, _target: Any = None) -> NoReturn:
        late = f"it was not imported while the plugin was built. hint: put 'import {name}' at the top of the file"
        why = never(name) or late
        raise ModuleNotFoundError(f"no module '{name}' in a plugin: {why}", name=name)


def _unknown_encoding(name: str) -> NoReturn:
    raise LookupError(
        f"encoding '{name}' is unknown or was not imported while the plugin was built. hint: put "
        f"'import encodings.{name.replace('-', '_')}' at the top of the file"
    )
