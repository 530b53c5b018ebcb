"""Tests of the functions that raise errors instead of a trap. Each runs in its own interpreter, which it changes."""

import json
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

KIT = Path(__file__).parent.parent

CALLS = json.loads(Path(__file__).with_name("sandbox_calls.json").read_text())
"""Calls, in three groups. `host/tests/it/plugin_python.rs` runs them in a component."""
UNAVAILABLE = CALLS["unavailable"]
"""Calls that fail even while a plugin is imported, and parts of their messages."""
DEPLOYED = CALLS["unavailable when deployed"]
"""Calls that fail in a deployed plugin only, and parts of their messages."""
WORKING = CALLS["working when deployed"]
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
