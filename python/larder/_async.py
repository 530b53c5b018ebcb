"""Runs calls of coroutines in threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ._errors import Timeout

T = TypeVar("T")

# The timeout of a call that starts at its deadline, in seconds. A timeout must be positive.
MIN_REMAINING = 1e-6


class AsyncCalls:
    """Runs at most `limit` calls at the same time, each in a thread. Further calls wait until a thread is free.

    The threads belong to this object, not to the event loop, whose executor other code uses, too. A thread is created when it is
    needed. A child process after a fork creates its own threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[float], T], timeout: float) -> T:
        """Returns the result of `call`, whose argument is the part of `timeout` that remains when it starts.

        If the coroutine is cancelled, a waiting call is dropped, and a running call continues.

        Raises:
            Timeout: No thread was free within `timeout`.
        """
        if timeout <= 0:
            # The call reports the invalid argument.
            return call(timeout)
        deadline = time.monotonic() + timeout
        submitted = self._threads().submit(lambda: call(max(deadline - time.monotonic(), MIN_REMAINING)))
        waiting = asyncio.wrap_future(submitted)
        try:
            done, _ = await asyncio.wait({waiting}, timeout=timeout)
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        # A running call ends by its own timeout.
        if not done and submitted.cancel():
            message = f"the call waited {timeout:g} s for a thread, because {self._limit} calls were running"
            raise Timeout(f"{message}. hint: raise 'async_calls' of the store")
        return await waiting

    def _threads(self) -> ThreadPoolExecutor:
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._limit, "larder-lookup")
            return self._executor
