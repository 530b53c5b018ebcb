"""Runs a process, and measures it."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Measurement:
    """CPU time (user and system) and wall time in seconds, the peak resident memory in MiB, and the load of the machine
    before the run: the mean number of runnable processes in the last minute."""

    cpu: float
    wall: float
    peak: float
    load: float


def measure(command: list[str], cwd: Path) -> Measurement:
    """Runs a command. The peak is that of the largest process among the command and its children. It includes the memory
    of this process before it starts the command, so this process must be small.

    Raises `subprocess.CalledProcessError` with the output, if the command fails.
    """
    load = os.getloadavg()[0]
    output = cwd / "output.txt"
    with output.open("wb") as file:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, output.read_text(errors="replace")[-2_000:])
    return Measurement(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, load)
