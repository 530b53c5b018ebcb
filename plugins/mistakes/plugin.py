"""Makes the mistake that its configuration names. For tests of the host. Never for production."""

import os, random, subprocess, threading, time, urllib.request  # noqa: E401
from dataclasses import dataclass

from larder_plugin import Float64, Int32, String, plugin

total = 0.0
first = []


@dataclass
class Config:
    """``mistake`` is a key of :data:`MISTAKES`."""

    mistake: str


def row(y=0.0, n=0, text=""):
    return {"y": y, "n": n, "text": text}


def running_total(x):
    global total
    total += x
    return row(y=total)


def first_row(x):
    first.append(x)
    return row(y=first[0])


def recursion(x):
    return recursion(x + 1.0)


def endless(x):
    while True:
        x += 1.0


MISTAKES = {
    "none": lambda x: row(y=x),
    # Functions that a plugin does not have.
    "random": lambda x: row(y=random.random()),
    "clock": lambda x: row(y=time.time()),
    "sleep": lambda x: row(y=time.sleep(1)),
    "file": lambda x: row(text=open("rates.csv").read()),
    "environment": lambda x: row(text=os.environ["RATES_KEY"]),
    "network": lambda x: row(text=urllib.request.urlopen("http://rates.example").read()),
    "thread": lambda x: row(y=threading.Thread(target=print).start()),
    "process": lambda x: row(text=subprocess.run(["date"])),
    "late_import": lambda x: row(y=__import__("colorsys")),
    "debugger": lambda x: row(y=breakpoint()),
    # Results that depend on more than the row.
    "running_total": running_total,
    "first_row": first_row,
    # Rows that fail.
    "null": lambda x: row(y=x * 2.0),
    "division": lambda x: row(y=1.0 / (x - x)),
    "recursion": recursion,
    "endless": endless,
    "memory": lambda x: row(text="x" * 10**9),
    "large_output": lambda x: row(text="x" * 5_000_000),
    # Results that do not match the outputs.
    "text_for_number": lambda x: row(y="12.5"),
    "number_for_text": lambda x: row(text=3),
    "out_of_range": lambda x: row(n=2**31),
    "nan_to_int": lambda x: row(n=float("nan")),
    "surrogate": lambda x: row(text="\ud800"),
    "misspelled": lambda x: {"y": x, "n": 0, "txt": ""},
    "missing": lambda x: {"y": x, "n": 0},
    "no_return": lambda x: None,
    "null_output": lambda x: row(text=None),
}


@plugin(
    name="mistakes",
    version="1.0.0",
    inputs={"x": Float64("Any number.")},
    outputs={"y": Float64("A number."), "n": Int32("A whole number."), "text": String("A text.", nullable=False)},
    config=Config,
)
def derive(x, config):
    if x is None and config.mistake != "null":
        x = 0.0
    return MISTAKES[config.mistake](x)
