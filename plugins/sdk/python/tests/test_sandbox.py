"""Tests of the functions that raise errors instead of a trap. Each runs in its own interpreter, which it changes."""

import json
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

KIT = Path(__file__).parent.parent

UNAVAILABLE = {
    "time.time()": "a plugin has no clock. hint: use context.as_of",
    "time.sleep(0)": "a plugin has no clock",
    "time.monotonic_ns()": "a plugin has no clock",
    "time.gmtime()": "time.gmtime() without a time: a plugin has no clock",
    "time.localtime(None)": "a plugin has no clock",
    "time.strftime('%Y')": "a plugin has no clock",
    "time.ctime()": "a plugin has no clock",
    "copied()": "time.time(): a plugin has no clock",
    "datetime.datetime.now()": "datetime.now(): a plugin has no clock",
    "datetime.datetime.now(datetime.timezone.utc)": "a plugin has no clock",
    "datetime.datetime.utcnow()": "a plugin has no clock",
    "datetime.datetime.today()": "a plugin has no clock",
    "datetime.date.today()": "date.today(): a plugin has no clock",
    "email.utils.formatdate()": "a plugin has no clock",
    "random.random()": "a plugin has no randomness",
    "random.shuffle([1])": "a plugin has no randomness",
    "random.seed(1)": "hint: use random.Random(seed)",
    "random.Random()": "random.Random() without a seed: a plugin has no randomness",
    "random.SystemRandom().random()": "a plugin has no randomness",
    "secrets.token_hex()": "a plugin has no randomness",
    "uuid.uuid4()": "a plugin has no randomness",
    "os.urandom(1)": "a plugin has no randomness",
    "threading.Thread(target=print).start()": "a plugin has one thread",
    "concurrent.futures.ThreadPoolExecutor().submit(print)": "a plugin has",
    "_thread.start_new_thread(print, ())": "a plugin has one thread",
    "asyncio.run(None)": "a plugin has",
    "socket.socket()": "a plugin has no network",
    "socket.getaddrinfo('localhost', 80)": "a plugin has no network",
    "urllib.request.urlopen('http://localhost/')": "a plugin has no network",
    "subprocess.run(['true'])": "a plugin cannot start or end processes",
    "os._exit(1)": "a plugin cannot start or end processes",
    "signal.signal(2, None)": "a plugin has no signals",
    "signal.raise_signal(2)": "a plugin has no signals",
    "input()": "a plugin has no standard input",
    "breakpoint()": "hint: do it in a unit test",
    "sys.setrecursionlimit(9999)": "hint: use a loop",
}
"""Calls that fail even while a plugin is imported, and parts of their messages."""

DEPLOYED = {
    "open('a')": "a deployed plugin has no files. hint: read them at the top of a module",
    "io.open('a')": "a deployed plugin has no files",
    "copied_listdir('.')": "os.listdir(): a deployed plugin has no files",
    "os.stat('.')": "a deployed plugin has no files",
    "os.getcwd()": "a deployed plugin has no files",
    "os.path.exists('a')": "os.path.exists(): a deployed plugin has no files",
    "glob.glob('*')": "a deployed plugin has no files",
    "pathlib.Path('a').read_text()": "a deployed plugin has no files",
    "pathlib.Path('a').exists()": "a deployed plugin has no files",
    "tempfile.mkstemp()": "plugin has no",
    "os.environ['HOME']": "a plugin has no environment variables. hint: use the config",
    "os.environ.get('HOME')": "a plugin has no environment variables",
    "os.getenv('HOME', 'x')": "a plugin has no environment variables",
    "'HOME' in os.environ": "a plugin has no environment variables",
    "sys.stdin.read()": "a plugin has no standard input",
    "lock.acquire()": "Lock.acquire(): the lock is held",
    "lock.acquire(timeout=1)": "Lock.acquire(): the lock is held",
    "queue.SimpleQueue().get()": "the queue is empty",
    "queue.Queue().get()": "Lock.acquire(): the lock is held",
    "threading.Event().wait()": "Lock.acquire(): the lock is held",
}
"""Calls that fail in a deployed plugin only, and parts of their messages."""

WORKING = {
    "time.gmtime(0).tm_year": "1970",
    "time.strftime('%Y', (2020,) + (1,) * 8)": "'2020'",
    "datetime.datetime(2020, 1, 1) + datetime.timedelta(1)": "datetime.datetime(2020, 1, 2, 0, 0)",
    "datetime.datetime.strptime('2020', '%Y').year": "2020",
    "type(pickle.loads(pickle.dumps(datetime.datetime(2020, 1, 1)))) is datetime.datetime": "True",
    "isinstance(datetime.datetime.fromtimestamp(0, datetime.timezone.utc), datetime.date)": "True",
    "random.Random(5).random()": "0.6229016948897019",
    "uuid.uuid5(uuid.NAMESPACE_DNS, 'x').version": "5",
    "logging.getLogger().info('x')": "None",
    "traceback.format_exc()": "'NoneType: None\\n'",
    "'ä'.encode('cp1252')": "b'\\xe4'",
    "free.acquire()": "True",
    "lock.acquire(blocking=False)": "False",
    "locale.getlocale() and None": "None",
}
"""Calls that work in a deployed plugin, and the representations of their results."""

PREPARED = """
    import _thread, asyncio, concurrent.futures, concurrent.futures.thread, datetime, email.utils, glob, io, json
    import locale, logging, os, pathlib, pickle, queue, random, secrets, signal, socket, subprocess, sys, tempfile
    import threading, time, traceback, urllib.request, uuid
    from os import listdir as copied_listdir
    from time import time as copied
    free, lock = threading.Lock(), threading.Lock()
    lock.acquire()
"""
SANDBOX = """
    from larder_plugin._replacing import Unavailable
    from larder_plugin._sandbox import Sandbox
    sandbox = Sandbox()
"""


def interpreted(*parts):
    """Runs code in a new interpreter, and returns its output."""
    code = "\n".join(textwrap.dedent(part) for part in parts)
    ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=KIT, capture_output=True, text=True, timeout=60)
    if ended.returncode:
        raise AssertionError(ended.stderr)
    return ended.stdout


def results(calls, *, deployed):
    """Returns the result or the error of each call, after the functions were replaced."""
    printed = interpreted(
        SANDBOX,
        PREPARED,
        "sandbox.deployment()()" if deployed else "",
        f"""
        lines = []
        for call in {list(calls)!r}:
            try:
                lines.append(repr(eval(call)))
            except Unavailable as error:
                lines.append(f"Unavailable {{error}}")
            except BaseException as error:
                lines.append(f"{{type(error).__name__}} {{error}}")
        print(json.dumps(lines))
        """,
    )
    return json.loads(printed)


class Sandboxed(unittest.TestCase):
    def check(self, calls, *, deployed):
        for (call, words), result in zip(calls.items(), results(calls, deployed=deployed), strict=True):
            with self.subTest(call=call):
                self.assertRegex(result, "^Unavailable ")
                self.assertIn(words, result)

    def test_unavailable_functions_fail_during_import(self):
        self.check(UNAVAILABLE, deployed=False)

    def test_unavailable_functions_fail_when_deployed(self):
        self.check({**UNAVAILABLE, **DEPLOYED}, deployed=True)

    def test_other_functions_work_when_deployed(self):
        for (call, value), result in zip(WORKING.items(), results(WORKING, deployed=True), strict=True):
            self.assertEqual(result, value, call)

    def test_files_are_readable_during_import(self):
        calls = ["len(open('larder_plugin/log.py').read()) > 0", "os.path.exists('tests')"]
        text, there = results(calls, deployed=False)
        self.assertEqual((text, there), ("True", "True"))

    def test_late_imports_name_the_reason(self):
        calls = ["__import__('colorsys')", "__import__('numpy')", "__import__('requests')", "'x'.encode('shift_jis')"]
        late, compiled, network, encoding = results(calls, deployed=True)
        self.assertIn("hint: put 'import colorsys' at the top of the file", late)
        self.assertIn("compiled code (C extensions)", compiled)
        self.assertIn("a plugin has no network", network)
        self.assertIn("hint: put 'import encodings.shift_jis' at the top of the file", encoding)

    def test_nesting_is_limited_when_deployed(self):
        depth = """
        def depth(count):
            return depth(count - 1) if count else "done"
        def measured(count):
            try:
                return depth(count)
            except RecursionError:
                return "RecursionError"
        """
        printed = interpreted(
            SANDBOX,
            depth,
            "print(measured(500))",
            "sandbox.deployment()()",
            "print(measured(70), measured(80))",
        )
        self.assertEqual(printed.split(), ["done", "done", "RecursionError"])


if __name__ == "__main__":
    unittest.main()
