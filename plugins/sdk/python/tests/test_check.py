"""Tests of the check of a project before a build, as `larder plugin build` runs it."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from larder_plugin._check import COMPONENT_VERSION, DOUBTFUL, MISTAKE

KIT = Path(__file__).parent.parent / "larder_plugin"
PLUGIN = """
from larder_plugin import Float64, plugin
@plugin(name="p", version="1.0.0", inputs={"x": Float64("x")}, outputs={"y": Float64("y")})
def derive(x):
    return x
"""
# Other versions of Python report other errors.
OTHER = MISTAKE if sys.version_info[:2] == COMPONENT_VERSION else DOUBTFUL


class Check(unittest.TestCase):
    def setUp(self):
        self.project = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.project)
        shutil.copytree(KIT, self.project / "larder_plugin", ignore=shutil.ignore_patterns("__pycache__"))

    def check(self, source, status, printed, **files):
        (self.project / "plugin.py").write_text(source)
        for name, text in files.items():
            (self.project / f"{name}.py").write_text(text)
        command = [sys.executable, "-I", "-S", "-B", "larder_plugin/_check.py"]
        ended = subprocess.run(command, cwd=self.project, capture_output=True, text=True, timeout=60)
        self.assertEqual((ended.returncode, ended.stderr.strip()), (status, printed))

    def test_correct_plugin_passes(self):
        self.check(PLUGIN, 0, "")
        self.check(
            "import other, logging, asyncio, subprocess, uuid\n" + PLUGIN, 0, "", other="VALUE = open(__file__).read()"
        )

    def test_declaration_error_has_file_and_line(self):
        self.check(
            PLUGIN.replace("derive(x)", "derive(z)"),
            MISTAKE,
            'Traceback (most recent call last):\n  File "plugin.py", line 3, in <module>\n    '
            + PLUGIN.splitlines()[2]
            + "\nDeclarationError: plugin 'p' is declared incorrectly:\n  parameter 'z' of derive() is not an input\n"
            "  input 'x' is not a parameter of derive()",
        )

    def check_error(self, source, error):
        """Checks the last line of a mistake that is certain with every version of Python."""
        (self.project / "plugin.py").write_text(source)
        command = [sys.executable, "-I", "-S", "-B", "larder_plugin/_check.py"]
        ended = subprocess.run(command, cwd=self.project, capture_output=True, text=True, timeout=60)
        self.assertEqual((ended.returncode, ended.stderr.splitlines()[-1].strip()), (MISTAKE, error))

    def test_function_must_be_an_ordinary_one(self):
        self.check_error(PLUGIN.replace("def", "async def"), "derive() is async; remove 'async', because a plugin has one thread")
        self.check_error(PLUGIN.replace("return", "yield"), "derive() has a 'yield'; return the outputs instead")

    def test_arguments_of_the_decorator_are_checked(self):
        example = "as in @plugin(name=..., version=..., inputs=..., outputs=...)"
        for source, error in [
            (PLUGIN.replace("name=", ""), f"the arguments of @plugin must be named, {example}; got str 'p'"),
            (PLUGIN.replace("outputs=", "output="), "@plugin has no argument 'output' (did you mean 'outputs'?)"),
            (PLUGIN.replace('version="1.0.0", ', ""), f"@plugin needs the argument version, {example}"),
            ("from larder_plugin import plugin\n@plugin\ndef f(x):\n    return x\n", f"@plugin needs arguments, {example}"),
        ]:
            with self.subTest(error):
                self.check_error(source, f"DeclarationError: {error}")

    def test_imports_get_advice_that_is_certain(self):
        for source, error in [
            (PLUGIN.replace("Float64, ", "Float65, "), "ImportError: larder_plugin has no 'Float65' (did you mean 'Float64'?)"),
            (
                f"from . import rates\n{PLUGIN}",
                "ImportError: a relative import does not work in plugin.py, because the project is not a package. hint: "
                "write 'import NAME' or 'from NAME import ...' without the dot",
            ),
            (
                f"open('rates.csv')\n{PLUGIN}",
                "hint: put the file into the project, and open pathlib.Path(__file__).with_name('rates.csv')",
            ),
            (
                f"import os\nos.environ['KEY']\n{PLUGIN}",
                "os.environ: a plugin has no environment variables. hint: use the config of the derived view",
            ),
        ]:
            with self.subTest(error):
                self.check_error(source, error)

    def test_replaced_plugin_is_found(self):
        self.check_error(
            PLUGIN + PLUGIN,
            "DeclarationError: plugin.py declares 2 plugins (p, p) instead of one: put @plugin(...) on one function",
        )

    def test_number_of_plugins_is_checked(self):
        self.check("X = 1", MISTAKE, "DeclarationError: plugin.py declares no plugin: put @plugin(...) on one function")
        self.check(
            PLUGIN + PLUGIN.replace('"p"', '"q"').replace("derive", "other"),
            MISTAKE,
            "DeclarationError: plugin.py declares 2 plugins (p, q) instead of one: put @plugin(...) on one function",
        )

    def test_clock_during_import_is_a_mistake(self):
        self.check(
            "import other\n",
            MISTAKE,
            'Traceback (most recent call last):\n  File "plugin.py", line 1, in <module>\n    import other\n'
            '  File "other.py", line 2, in <module>\n    NOW = time()\n'
            "Unavailable: time.time(): a plugin has no clock. hint: use context.as_of, the reference time of the "
            "row",
            other="from time import time\nNOW = time()\n",
        )

    def check_import(self, name, why, status=MISTAKE, **files):
        self.check(
            f"import {name}\n",
            status,
            f'Traceback (most recent call last):\n  File "plugin.py", line 1, in <module>\n    import {name}\n'
            f"ModuleNotFoundError: no module '{name}'{why}",
            **files,
        )

    def test_missing_module_names_the_way_out(self):
        compiled = (
            " in a plugin: it needs compiled code (C extensions), which does not work in a plugin. hint: use math, "
            "statistics and array of the standard library. The project has no other modules"
        )
        self.check_import("numpy", compiled)
        self.check_import("ssl", " in a plugin: a plugin has no network. hint: pass the data as inputs")
        self.check_import(
            "absent",
            ", neither in the standard library of a plugin nor in the project. hint: copy a package that is written in "
            "Python only next to plugin.py: pip install --target . absent. The project has the modules rates",
            rates="X = 1",
        )

    def test_compiled_package_of_project_is_explained(self):
        (self.project / "fast").mkdir()
        (self.project / "fast" / "_fast.so").write_bytes(b"")
        self.check_import(
            "fast._fast",
            " in a plugin: it needs compiled code (C extensions), which does not work in a plugin. hint: use math, "
            "statistics and array of the standard library. The project has no other modules",
        )

    def test_optional_import_may_fail(self):
        self.check("try:\n    import numpy\nexcept ImportError:\n    numpy = None\n" + PLUGIN, 0, "")

    def test_packages_of_the_environment_are_not_used(self):
        self.check("import sys\nassert not any('-packages' in path for path in sys.path), sys.path\n" + PLUGIN, 0, "")
        self.check("import os\nassert not os.environ\n" + PLUGIN, 0, "")

    def test_errors_of_other_versions_are_doubtful(self):
        self.check(
            "def f(:\n    pass\n",
            OTHER,
            'File "plugin.py", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax',
        )
        self.check(
            "1 / 0\n",
            OTHER,
            'Traceback (most recent call last):\n  File "plugin.py", line 1, in <module>\n    1 / 0\n'
            "ZeroDivisionError: division by zero",
        )


if __name__ == "__main__":
    unittest.main()
