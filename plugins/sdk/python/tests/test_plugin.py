"""Tests of declarations of plugins, and of calls as the host makes them."""

import unittest
from dataclasses import dataclass
from datetime import datetime, timezone

from larder_plugin import (
    Array,
    Context,
    Contexts,
    DeclarationError,
    Fault,
    Float32,
    Float64,
    Int64,
    String,
    log,
    plugin,
)
from larder_plugin.testing import Failed, logged, run

X = {"x": Float64("x")}
XY = {"x": Float64("x"), "y": Float64("y")}


def declared(function, *, inputs=None, outputs=None, **more):
    return plugin(name="p", version="1.0.0", inputs=X if inputs is None else inputs, outputs=outputs or X, **more)(
        function
    )


class Rows(unittest.TestCase):
    def test_row_returns_value_tuple_or_dict(self):
        rows = [{"x": 1.0}, {}]
        one = [{"x": 1.0}, {"x": None}]
        for function in (lambda x: x, lambda x: {"x": x}):
            self.assertEqual(run(declared(function), rows), one)
            self.assertEqual(run(declared(function), rows[:1]), one[:1])
        two = [{"x": 1.0, "y": 2.0}, {"x": None, "y": 2.0}]
        for function in (
            lambda x: (x, 2.0),
            lambda x: [x, 2.0],
            lambda x: {"y": 2.0, "x": x},
            lambda x: (x, 2.0) if x else {"x": x, "y": 2.0},
        ):
            self.assertEqual(run(declared(function, outputs=XY), rows), two)
            self.assertEqual(run(declared(function, outputs=XY), rows[:1]), two[:1])
            self.assertEqual(run(declared(function, outputs=XY), rows[1:]), two[1:])

    def test_list_is_value_of_single_output(self):
        double = declared(lambda x: [x, x], outputs={"y": Array(Float32)("y")})
        self.assertEqual(run(double, [{"x": 0.5}]), [{"y": [0.5, 0.5]}])

    def test_parameters_may_be_in_any_order(self):
        swapped = declared(lambda y, x: x - y, inputs=XY)
        self.assertEqual(run(swapped, [{"x": 3.0, "y": 1.0}] * 2), [{"x": 2.0}] * 2)

    def test_without_inputs_and_without_rows(self):
        self.assertEqual(run(declared(lambda: 1.0, inputs={}), []), [])
        self.assertEqual(run(declared(lambda: 1.0, inputs={}), [{}, {}]), [{"x": 1.0}, {"x": 1.0}])
        self.assertEqual(run(declared(lambda x: (x, x), outputs=XY), []), [])

    def test_result_of_wrong_shape_fails_row(self):
        for function, words in (
            (lambda x: None, "the function returned None (is a return missing?); expected a dict or tuple of x, y"),
            (lambda x: (x,), "the function returned a tuple of 1; expected a dict or tuple of x, y"),
            (lambda x: {"x": x}, "the function returned no value for output 'y'"),
            (lambda x: {"x": x, "y": x, "z": x}, "the function returned 'z', which is not an output"),
            (lambda x: 1.0, "the function returned float 1.0; expected a dict or tuple of x, y"),
        ):
            either = declared(lambda x: function(x) if x else (x, 1.0), outputs=XY)
            self.assertEqual(run(either, [{"x": 1.0}]), [Failed(words)])
            self.assertEqual(run(either, [{}, {"x": 1.0}]), [{"x": None, "y": 1.0}, Failed(words)])
        [failed] = run(declared(lambda x: {"ratio_": x}, outputs={"ratio": Float64("r")}), [{}])
        self.assertRegex(failed.message, r"'ratio_', which is not an output \(did you mean 'ratio'\?\)")


class Columns(unittest.TestCase):
    def test_all_rows_at_once(self):
        rows = [{"x": 1.0}, {}, {"x": 3.0}]
        seen = []

        def doubled(x):
            seen.append(x)
            return [None if value is None else value * 2 for value in x]

        self.assertEqual(run(declared(doubled, by="columns"), rows), [{"x": 2.0}, {"x": None}, {"x": 6.0}])
        self.assertEqual(seen[0], [1.0, None, 3.0])
        both = declared(lambda x: {"y": x, "x": [1.0] * len(x)}, outputs=XY, by="columns")
        self.assertEqual(run(both, rows[:1]), [{"x": 1.0, "y": 1.0}])

    def test_lists_of_wrong_length_are_errors(self):
        first = declared(lambda x: x[:1], by="columns")
        # The host tries the rows one by one.
        self.assertEqual(run(first, [{"x": 1.0}, {"x": 2.0}]), [{"x": 1.0}, {"x": 2.0}])
        self.assertEqual(run(declared(lambda x: [], by="columns"), [{}]), [Failed("output 'x': 0 values for 1 rows")])
        [failed] = run(declared(lambda x: 1.0, by="columns"), [{}])
        self.assertEqual(failed, Failed("output 'x': expected a list with a value per row, got float 1.0"))

    def test_exception_fails_the_batch(self):
        def inverse(x):
            return [1.0 / value for value in x]

        with logged():
            good, bad, other = run(declared(inverse, by="columns"), [{"x": 2.0}, {"x": 0.0}, {"x": 4.0}])
        self.assertEqual((good, other), ({"x": 0.5}, {"x": 0.25}))
        self.assertRegex(bad.message, r"^ZeroDivisionError: .* \(.*test_plugin.py:\d+, in (<listcomp>|inverse)\)$")

    def test_wrong_value_fails_only_its_row(self):
        mixed = declared(lambda x: ["a" if value == 2.0 else value for value in x], by="columns")
        self.assertEqual(
            run(mixed, [{"x": 1.0}, {"x": 2.0}]),
            [{"x": 1.0}, Failed("output 'x' (Float64): expected a float, got str 'a'")],
        )


class Required(unittest.TestCase):
    def test_rows_without_required_input_are_skipped(self):
        inputs = {"x": Float64("x", required=True), "y": Float64("y")}
        rows = [{"x": 1.0}, {"y": 2.0}, {"x": 3.0, "y": 4.0}]
        expected = [{"x": 1.0}, {"x": None}, {"x": 7.0}]
        by_row = declared(lambda x, y: x + (y or 0.0), inputs=inputs)
        self.assertEqual(run(by_row, rows), expected)
        self.assertEqual(run(by_row, rows[1:2]), [{"x": None}])
        self.assertEqual(run(by_row, rows[:1]), [{"x": 1.0}])
        by_columns = declared(lambda x, y: [a + (b or 0.0) for a, b in zip(x, y)], inputs=inputs, by="columns")
        self.assertEqual(run(by_columns, rows), expected)
        several = declared(lambda x: (x, 1.0), inputs={"x": inputs["x"]}, outputs=XY)
        self.assertEqual(run(several, [{}, {}]), [{"x": None, "y": None}] * 2)

    def test_computed_row_has_all_non_nullable_outputs(self):
        inputs = {"x": Float64("x", required=True)}
        never = declared(lambda x: x if x > 0 else None, inputs=inputs, outputs={"x": Float64("x", nullable=False)})
        words = "output 'x' (Float64): got None, but the output has nullable=False"
        self.assertEqual(run(never, [{}, {"x": 1.0}, {"x": -1.0}]), [{"x": None}, {"x": 1.0}, Failed(words)])
        self.assertEqual(run(never, [{}, {"x": 1.0}]), [{"x": None}, {"x": 1.0}])

    def test_failed_row_keeps_its_index(self):
        failing = declared(lambda x: 1 / x, inputs={"x": Float64("x", required=True)})
        with logged():
            results = run(failing, [{}, {"x": 1.0}, {"x": 0.0}, {}, {"x": 2.0}])
        self.assertEqual([type(result) for result in results], [dict, dict, Failed, dict, dict])
        self.assertEqual(results[4], {"x": 0.5})
        shapeless = declared(lambda x: None, inputs={"x": Float64("x", required=True)}, outputs=XY)
        self.assertIsInstance(run(shapeless, [{}, {}, {"x": 1.0}])[2], Failed)


class Failures(unittest.TestCase):
    def test_exception_fails_only_its_row(self):
        def derive(x):
            if x is None:
                raise ValueError("no x")
            return x * 2

        with logged() as lines:
            results = run(declared(derive), [{"x": 1.0}, {}, {"x": 3.0}, {}])
        self.assertEqual((results[0], results[2]), ({"x": 2.0}, {"x": 6.0}))
        for result in (results[1], results[3]):
            self.assertRegex(result.message, r"^ValueError: no x \(.*test_plugin.py:\d+, in derive\)$")
        # Only the traceback of the first failed row is logged.
        [(level, text)] = lines
        self.assertEqual(level, "error")
        self.assertRegex(text, r"^Traceback \(most recent call last\):\n  File ")
        self.assertRegex(text, r", in derive\n(    .*\n)?ValueError: no x$")
        self.assertNotIn("_rows.py", text)

    def test_failed_row_is_null_in_all_outputs(self):
        never = {"x": Float64("x", nullable=False), "y": Float64("y", nullable=False)}
        derive = declared(lambda x: (1.0, 1.0 / x), outputs=never)
        with logged():
            for rows in ([{"x": 0.0}], [{"x": 0.0}, {"x": 1.0}]):
                self.assertRegex(run(derive, rows)[0].message, "^ZeroDivisionError")

    def test_every_kind_of_exception_fails_the_row(self):
        def raising(error):
            def derive(x):
                if x:
                    raise error
                return x

            return derive

        class Broken(Exception):
            def __str__(self):
                raise ValueError("no text")

        malformed = ValueError("malformed")
        malformed.__notes__ = 5
        for error, words in (
            (SystemExit(3), "^SystemExit: 3 "),
            (malformed, "^ValueError: malformed "),
            (StopIteration(), "^StopIteration"),
            (GeneratorExit(), "^GeneratorExit "),
            (MemoryError(), "^MemoryError "),
            (Broken(), r"^Broken: \(its str\(\) raises ValueError\) "),
            (ValueError("a" * 10_000), r"^ValueError: a{480,488}\.\.\. "),
        ):
            with logged():
                one = run(declared(raising(error)), [{"x": 1.0}])
                first, failed, last = run(declared(raising(error)), [{"x": 0.0}, {"x": 1.0}, {}])
            self.assertRegex(one[0].message, words)
            self.assertRegex(failed.message, words)
            self.assertEqual((first, last), ({"x": 0.0}, {"x": None}))

    def test_traceback_has_causes_and_limited_depth(self):
        def caused(x):
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("outer") from error

        with logged() as lines:
            run(declared(caused), [{}])
        self.assertRegex(lines[0][1], r"(?s)KeyError: 'key'.*direct cause.*ValueError: outer$")

        def endless(x):
            return endless(x)

        with logged() as lines:
            [failed] = run(declared(endless), [{}])
        self.assertRegex(failed.message, r"^RecursionError: .*\. hint: use a loop")
        self.assertLess(len(lines[0][1]), 4096)
        self.assertIn("more frames", lines[0][1])

    def test_fault_of_plugin_is_not_changed(self):
        def reject(x):
            raise Fault("x is unusable")

        for by in ("row", "columns"):
            with logged() as lines:
                self.assertEqual(run(declared(reject, by=by), [{}, {}]), [Failed("x is unusable")] * 2)
            self.assertEqual(lines, [])

    def test_rows_of_a_test_are_checked(self):
        with self.assertRaisesRegex(ValueError, r"row 1: 'amonut' is not an input \(did you mean 'amount'\?\)"):
            run(declared(lambda amount: amount, inputs={"amount": Float64("a")}), [{}, {"amonut": 1.0}])
        with self.assertRaisesRegex(ValueError, r"^row 1: input 'x' \(Float64\): expected a float, got str 'a'$"):
            run(declared(lambda x: x), [{}, {"x": "a"}])


class OtherBatches(unittest.TestCase):
    def test_dependence_on_earlier_calls_is_reported(self):
        calls = []

        def counted(x):
            calls.append(x)
            return float(len(calls))

        with self.assertRaisesRegex(
            AssertionError, r"^row 0: the result is float 1.0 in the batch, but float 2.0 alone, in"
        ):
            run(declared(counted), [{}])

    def test_dependence_on_other_rows_is_reported(self):
        shares = declared(lambda x: [value / sum(x) for value in x], by="columns")
        with self.assertRaisesRegex(
            AssertionError, "row 0: the result is .* alone, in output 'x'. hint: a row's outputs"
        ):
            run(shares, [{"x": 1.0}, {"x": 3.0}])

    def test_dependence_on_order_is_reported(self):
        running = declared(lambda x: [sum(x[: row + 1]) - x[row] + x[row] for row in range(len(x))], by="columns")
        with self.assertRaisesRegex(AssertionError, "row 1: "):
            run(running, [{"x": 0.0}, {"x": 1.0}, {"x": 0.0}, {"x": 3.0}][1::2] + [{"x": 0.0}])

    def test_nan_and_lists_are_compared_by_bits(self):
        same = declared(lambda x: (x, [x, -0.0]), outputs={"x": Float64("x"), "y": Array(Float64)("y")})
        results = run(same, [{"x": float("nan")}, {"x": 0.0}])
        self.assertEqual(results[1], {"x": 0.0, "y": [0.0, -0.0]})
        state = []
        zero = declared(lambda x: 0.0 if state.append(0) or len(state) % 2 else -0.0)
        with self.assertRaises(AssertionError):
            run(zero, [{}])


class Constants(unittest.TestCase):
    def test_context_has_time_of_row(self):
        as_of = declared(lambda context, x: context.as_of, outputs={"x": Int64("x")})
        self.assertEqual(run(as_of, [{}, {}], as_of=7), [{"x": 7}, {"x": 7}])
        self.assertEqual(run(as_of, [{}, {}], as_of=[7, 8]), [{"x": 7}, {"x": 8}])
        noon = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
        time = declared(lambda x, context: context.time.isoformat(), outputs={"x": String("x")})
        self.assertEqual(run(time, [{}], as_of=noon), [{"x": "2026-11-23T12:00:00+00:00"}])
        self.assertEqual(repr(Context(7)), "Context(as_of=7)")
        with self.assertRaisesRegex(ValueError, "as_of has 1 times for 2 rows"):
            run(as_of, [{}, {}], as_of=[7])

    def test_contexts_have_times_of_rows(self):
        as_of = declared(lambda context, x: context.as_of, outputs={"x": Int64("x")}, by="columns")
        self.assertEqual(run(as_of, [{}, {}], as_of=[7, 8]), [{"x": 7}, {"x": 8}])
        self.assertEqual([time.microsecond for time in Contexts([7, 8]).time], [7, 8])

    def test_skipped_rows_have_no_context(self):
        inputs = {"x": Float64("x", required=True)}
        rows = [{}, {"x": 1.0}, {}, {"x": 2.0}]
        expected = [{"x": None}, {"x": 8.0}, {"x": None}, {"x": 11.0}]
        by_row = declared(lambda x, context: x + context.as_of, inputs=inputs)
        self.assertEqual(run(by_row, rows, as_of=[6, 7, 8, 9]), expected)
        by_columns = declared(
            lambda x, context: [*map(float.__add__, x, map(float, context.as_of))], inputs=inputs, by="columns"
        )
        self.assertEqual(run(by_columns, rows, as_of=[6, 7, 8, 9]), expected)

    def test_config_is_parsed_json(self):
        scaled = declared(lambda x, config: x * config["scale"])
        self.assertEqual(run(scaled, [{"x": 2.0}, {"x": 1.0}], config={"scale": 3}), [{"x": 6.0}, {"x": 3.0}])

    def test_dataclass_checks_config(self):
        @dataclass
        class Limits:
            high: float
            name: str = "n"
            count: int = 1

            def __post_init__(self):
                if self.high < 0:
                    raise ValueError("high is below 0")

        limited = declared(lambda x, config: config.high, config=Limits)
        self.assertEqual(run(limited, [{}], config={"high": 3}), [{"x": 3.0}])
        for config, words in (
            (None, "required key 'high' is missing in the config"),
            ([], r"the config must be an object, got list \[\]"),
            ({"hihg": 1}, r"unknown key 'hihg' in the config \(did you mean 'high'\?\)"),
            ({"high": "1"}, "config 'high' must be a number, got str '1'"),
            ({"high": True}, "config 'high' must be a number, got bool True"),
            ({"high": 1, "count": 1.5}, "config 'count' must be a whole number, got float 1.5"),
            ({"high": -1}, "config: high is below 0"),
        ):
            with self.assertRaisesRegex(Fault, f"^{words}$"):
                run(limited, [{}], config=config)

    def test_unused_config_is_rejected(self):
        run(declared(lambda x: x), [], config={})
        with self.assertRaisesRegex(Fault, "plugin 'p' takes no config, got dict {'a': 1}"):
            run(declared(lambda x: x), [], config={"a": 1})

    def test_log_lines_have_levels(self):
        def talk(x):
            log.debug("a")
            log.info("b")
            log.warn(1)
            log.error("d")

        with logged() as lines:
            run(declared(talk), [{}])
        self.assertEqual(lines, [("debug", "a"), ("info", "b"), ("warn", "1"), ("error", "d")])


class Declarations(unittest.TestCase):
    def check(self, function, mistakes, **how):
        with self.assertRaises(DeclarationError) as raised:
            declared(function, **how)
        head, *listed = str(raised.exception).split("\n  ")
        self.assertEqual(head, "plugin 'p' is declared incorrectly:")
        self.assertEqual(listed, mistakes)

    def test_parameters_must_match_inputs(self):
        def derive(monthly_charge, contxt, *rest, flag):
            pass

        self.check(
            derive,
            [
                "parameter 'monthly_charge' of derive() is not an input (did you mean 'monthly_charges'?)",
                "parameter 'contxt' of derive() is not an input (did you mean 'context'?)",
                "derive() takes *rest; name each input as a parameter instead",
                "parameter 'flag' of derive() is keyword-only, but parameters are passed by position",
                "input 'monthly_charges' is not a parameter of derive()",
            ],
            inputs={"monthly_charges": Float64("m")},
        )

    def test_fields_need_types_and_descriptions(self):
        self.check(
            lambda x: x,
            [
                "input 'x': add a description, as in Float64(\"...\")",
                "output 'y': must be a type with a description, as in Float64(\"...\"); got 'Float64'",
                "output '2nd': a name must be a letter or _, followed by letters, digits and _",
            ],
            inputs={"x": Float64},
            outputs={"y": "Float64", "2nd": Float64("z")},
        )
        self.check(
            lambda x: x,
            [
                "input 'x': nullable is only for outputs; use required=True for inputs",
                "output 'x': required is only for inputs; use nullable=False for outputs",
            ],
            inputs={"x": Float64("x", nullable=False)},
            outputs={"x": Float64("x", required=True)},
        )

    def test_other_errors(self):
        self.check(lambda x: x, ["by='rows': must be 'row' or 'columns'"], by="rows")
        self.check(
            lambda: [],
            ["by='columns' requires an input: without one, the number of rows is unknown"],
            inputs={},
            by="columns",
        )
        self.check(
            lambda x: x,
            [
                "config=<class 'dict'>: must be a dataclass",
                "a config is declared, but <lambda>() has no parameter 'config'",
            ],
            config=dict,
        )
        for name, version, words in (
            ("a-b", "1.0.0", "name 'a-b'"),
            ("p", "1.0", "version '1.0': must be three numbers"),
        ):
            with self.assertRaisesRegex(DeclarationError, words):
                plugin(name=name, version=version, inputs={}, outputs=X)(lambda: 1.0)
        with self.assertRaisesRegex(DeclarationError, "there are no outputs"):
            plugin(name="p", version="1.0.0", inputs={}, outputs={})(lambda: 1.0)
        with self.assertRaisesRegex(TypeError, "Array takes the type of its items"):
            Array(Array(Float64))
        with self.assertRaisesRegex(TypeError, "Float64 takes a one-line description"):
            Float64(1.0)
        self.assertEqual(repr(Array(Float64, nullable_items=True)), "Array(Float64, nullable_items=True)")

    def test_plugin_is_callable_and_has_doc(self):
        @plugin(name="p", version="1.0.0", inputs=X, outputs=X)
        def derive(x):
            """Says
            what it does."""
            return x * 2

        self.assertEqual(derive(2.0), 4.0)
        self.assertEqual((derive.doc, derive.__name__), ("Says\nwhat it does.", "derive"))
        self.assertEqual(declared(exit_with_module_doc).doc, __doc__)
        self.assertEqual(Float64("two\n  lines").doc, "two lines")


def exit_with_module_doc(x):
    return x


if __name__ == "__main__":
    unittest.main()
