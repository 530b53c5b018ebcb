"""Evaluates Python expressions. For tests of the host: callers choose what the plugin does. Never for production."""

import _thread, asyncio, concurrent.futures, concurrent.futures.thread, datetime, email.utils, glob, io, json  # noqa: E401
import locale, logging, math, os, pathlib, pickle, queue, random, secrets, signal, socket, subprocess, sys  # noqa: E401
import tempfile, threading, time, traceback, urllib.request, uuid  # noqa: E401
from os import listdir as copied_listdir
from time import time as copied

from larder_plugin import Array, Float64, String, plugin

free, lock = threading.Lock(), threading.Lock()
lock.acquire()


@plugin(
    name="evaluate",
    version="1.0.0",
    inputs={
        "code": String("A Python expression. It may use the other inputs."),
        "numbers": Array(Float64)("Numbers that are never null."),
        "items": Array(Float64, nullable_items=True)("Numbers that may be null."),
    },
    outputs={"text": String("The representation of its value.")},
)
def evaluate(code, numbers, items):
    """Evaluates an expression."""
    return None if code is None else repr(eval(code))
