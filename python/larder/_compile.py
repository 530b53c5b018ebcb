"""The process in which the package compiles plugins. The native module starts it; users do not.

The process has neither the environment nor the directory of its parent, so the first argument is the path of the native module.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("command", choices=["compile-plugin"])
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep-functions", action="store_true")
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("larder._native", arguments.module)
    assert spec is not None and spec.loader is not None
    native = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    code: int = native.compile_plugin(
        arguments.parent,
        arguments.cpu_seconds,
        arguments.memory_bytes,
        arguments.threads,
        arguments.keep_functions,
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
