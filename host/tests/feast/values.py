"""Compares Larder with Feast for each declared type, each unusual value and each way to write values.

There are three ways:

* files: Feast materializes a Parquet file, and Larder syncs the same file;
* pushes: the same data frame is sent to Feast's `push` and to Larder's `/push`;
* stored: Larder reads Feast's SQLite store.

Values that Feast rejects are only written to Larder. Such a value in a file must not affect other values of the row, and
a push with such a value must either write the whole row or nothing.

Usage: values.py LARDER DIR PLUGINS
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID as UUIDType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType, types
from feast.data_source import PushMode
from feast.feature_server_utils import _value_to_native
from feast.type_map import python_values_to_proto_values
from world import Checks, Server, environment, free_port, larder_server, make_repo

AT = datetime(2026, 11, 1)
ROWS = 4
UUID = "123e4567-e89b-42d3-a456-426614174000"
NAN, INF = float("nan"), float("inf")
NULL_INSTANT = -(2**63)

SCALARS = "Int64 Int32 Float32 Float64 Bool String Bytes UnixTimestamp Json Uuid Decimal".split()
TYPES: dict[str, Any] = {name: getattr(types, name) for name in SCALARS}
TYPES |= {f"Array({name})": types.Array(getattr(types, name)) for name in SCALARS}
# Feast has no sets of JSON.
TYPES |= {f"Set({name})": types.Set(getattr(types, name)) for name in SCALARS if name != "Json"}
TYPES |= {"Map": types.Map, "Array(Map)": types.Array(types.Map), "Array(Array)": types.Array(types.Array(types.Int64))}
TYPES |= {"Struct": types.Struct({"a": types.Int64}), "Array(Struct)": types.Array(types.Struct({"a": types.Int64}))}


def columns() -> dict[str, pa.Array]:
    """Returns columns of a file, by the name of their case. Values of short columns are repeated."""
    stamp = datetime(2026, 1, 1, 0, 0, 0, 987654)
    found = {
        "null": pa.nulls(2),
        "bool": pa.array([True, None, False]),
        "int8": pa.array([-5, 7], pa.int8()),
        "int32": pa.array([-5, 0], pa.int32()),
        "int64": pa.array([2**53 + 1, 1, 0]),
        "int64_with_null": pa.array([2**53 + 1, None, 0]),
        "int64_large": pa.array([3_000_000_000]),
        "uint64_max": pa.array([2**64 - 1], pa.uint64()),
        "float16": pa.array([0.1, 2.0], pa.float32()).cast(pa.float16()),
        "float32": pa.array([0.1, None, NAN], pa.float32()),
        "float64": pa.array([0.1, None, NAN, -0.0]),
        "float64_infinite": pa.array([INF, -INF]),
        "float64_whole": pa.array([3.0, None, 1e15]),
        "float64_fraction": pa.array([1.5, -1.5]),
        "float64_1e16": pa.array([1e16, 1e-7]),
        "float64_1e39": pa.array([1e39, 1.0]),
        "float64_nan": pa.array([NAN, NAN]),
        "decimal": pa.array([Decimal("1.50"), None, Decimal("-3.00")]),
        "decimal38": pa.array([Decimal(7), None], pa.decimal128(38, 0)),
        "decimal_small": pa.array([Decimal("0.00000001")]),
        "text": pa.array(["a", None, "", "é"]),
        "text_int": pa.array(["1", " +1_001 "]),
        "text_int_and_word": pa.array(["1", "abc"]),
        "text_float": pa.array(["1.5"]),
        "text_float_whole": pa.array(["9007199254740993.0"]),
        "text_1e39": pa.array(["1E+39"]),
        "text_nan": pa.array(["NaN", "inf"]),
        "text_bool": pa.array(["true", "True"]),
        "text_json": pa.array(['{"a": 1}', "[1, 2]", None]),
        "text_bad_json": pa.array(["{"]),
        "text_uuid": pa.array([UUID]),
        "text_time": pa.array(["2026-01-01T00:00:00Z"]),
        "text_null": pa.array(["NULL"]),
        "text_word": pa.array(["abc"]),
        "dictionary": pa.array(["a", "b", None]).dictionary_encode(),
        "bytes": pa.array([b"\x00\xff'", None, b""]),
        "bytes_json": pa.array([b"[1, 2]", None]),
        "date": pa.array([date(1970, 1, 2), None]),
        "timestamp_us": pa.array([stamp, None]),
        "timestamp_ms": pa.array([datetime(1969, 12, 31, 23, 59, 59, 500000)], pa.timestamp("ms")),
        "timestamp_ns": pa.array([1, -1], pa.timestamp("ns")),
        "timestamp_zone": pa.array([stamp], pa.timestamp("us", "Europe/Paris")),
        "timestamp_null": pa.array([None], pa.timestamp("us")),
        "time": pa.array([time(1, 2, 3)]),
        "list_int": pa.array([[2**53 + 1, 2], None, []]),
        "list_int_null": pa.array([[1, None]]),
        "list_int_twice": pa.array([[3, 3, 1]]),
        "list_int32": pa.array([[1, -2]], pa.list_(pa.int32())),
        "list_float": pa.array([[0.5, 0.1], None, []]),
        "list_float_null": pa.array([[1.0, None]]),
        "list_float_nan": pa.array([[1.0, NAN, INF]]),
        "list_float_zeros": pa.array([[1.5, 1.5, -0.0, 0.0]]),
        "list_float32": pa.array([[0.5, 0.1, None]], pa.list_(pa.float32())),
        "list_float_1e39": pa.array([[1e39]]),
        "list_text": pa.array([["a", None, ""], None, []]),
        "list_text_int": pa.array([["1", "2"]]),
        "list_text_twice": pa.array([["b", "b", "a"]]),
        "list_text_json": pa.array([['{"a": 1}', "[]"]]),
        "list_uuid": pa.array([[UUID, None]]),
        "list_decimal": pa.array([[Decimal("1.50"), None]]),
        "list_bool": pa.array([[True, None, False, True], None, []]),
        "list_bytes": pa.array([[b"\x00", None, b""], None]),
        "list_timestamp": pa.array([[stamp, None], None, []]),
        "list_date": pa.array([[date(1970, 1, 2)]]),
        "list_empty": pa.array([[], []]),
        "list_nulls": pa.array([[None, None]]),
        "list_fixed": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        "list_large": pa.array([["a"]], pa.large_list(pa.string())),
        "struct": pa.array([{"b": 1, "a": "x"}]),
        "struct_null": pa.array([{"a": 1.5, "c": None}]),
        "struct_deep": pa.array([{"a": {"b": [1, 2]}, "t": datetime(2026, 1, 1), "y": b"a", "u": True}]),
        "list_struct": pa.array([[{"a": 1.5}, {"a": None}], None, []]),
        "list_list": pa.array([[[1, 2], [3], None, []], None, []]),
        "list_list_text": pa.array([[["a"], ["b", "c"]]]),
    }
    return {name: array.take(pa.array([row % len(array) for row in range(ROWS)])) for name, array in found.items()}


# Values of a push, as JSON. Feast reads them with `pandas.DataFrame(json.loads(body)["df"])`.
PUSHED = [
    *"null true 0 1 2 -5 3000000000 9007199254740993 9223372036854775808 18446744073709551615".split(),
    *"1.0 1.5 1e16 1e-7 1e39 NaN Infinity -0.0".split(),
    *['""', '"a"', '"1"', '" +1_001 "', '"1.5"', '"9007199254740993.0"', '"1E+39"', '"NaN"', '"inf"', '"NULL"'],
    *['"true"', '"{\\"a\\": 1}"', '"[1, 2]"', '"{"', f'"{UUID}"', '"2026-01-01T00:00:00Z"', '"AAH/"', '"1.50"'],
    *["[]", "[1,2]", "[3,3,1]", "[1,null]", "[1.5,null]", "[1.5,NaN]", "[1,1.5]", "[true,null]", '["a",null,""]'],
    *['["1","1"]', f'["{UUID}"]', '["{}","[]"]', "[null]", "[[1],[2,3]]", "[[1],[],null]", '[["a"],["a"]]', "[1e39]"],
    *["{}", '{"a":1}', '{"b":1,"a":"x"}', '{"a":null}', '[{"a":1.5},{"a":null}]', '{"a":[1,1.5]}', '{"a":{"b":[true]}}'],
]


FLOATS = ["1.0", "1.5", "1e16", "1e-7", "1e39", "NaN", "Infinity", "-0.0"]


class Feast:
    """A Feast repository with views for each type, one for files and one for pushes, and the values that Feast serves."""

    def __init__(self, repo: Path) -> None:
        make_repo(repo, "")
        self.store = FeatureStore(str(repo))
        self.entity = Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)

    def view(self, name: str, path: Path, fields: dict[str, Any], pushed: bool) -> FeatureView:
        source: Any = FileSource(name=f"file_{name}", path=str(path), timestamp_field="event_timestamp")
        if pushed:
            source = PushSource(name=f"push_{name}", batch_source=source)
        schema = [Field(name="k", dtype=types.Int64), *(Field(name=name, dtype=kind) for name, kind in fields.items())]
        return FeatureView(name=name, entities=[self.entity], ttl=timedelta(0), source=source, schema=schema)

    def values(self, view: FeatureView, keys: list[int]) -> dict[str, list[Any]]:
        refs = [f"{view.name}:{field.name}" for field in view.features]
        answer = self.store.get_online_features(features=refs, entity_rows=[{"k": key} for key in keys]).proto
        named = zip(answer.metadata.feature_names.val, answer.results)
        return {
            name: [_value_to_native(value) if status == 1 else "NOT_FOUND" for value, status in zip(v.values, v.statuses)]
            for name, v in named
            if name != "k"
        }


def feast_takes(values: pd.DataFrame, dtype: Any) -> bool:
    """Returns whether Feast can convert a column. Runs the steps of Feast's materialization after the file is read."""
    try:
        column = pa.Table.from_pandas(values).to_batches()[0].column("f")
        python_values_to_proto_values(column.to_numpy(zero_copy_only=False), dtype.to_value_type())
        return True
    except Exception:  # noqa: BLE001: with any error, Feast does not write the view
        return False


def pushed_frame(text: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads('{"f": [%s]}' % text))


def larder(program: str, home: Path, yaml: str) -> Server:
    (home / "features").mkdir(parents=True)
    (home / "features/values.yaml").write_text(yaml)
    (home / "larder.yaml").write_text("{}\n")
    port = free_port()
    return Server("larder", [program, "serve", "--listen", f"127.0.0.1:{port}"], home, port).until_healthy("/ready")


def served(server: Server, view: str, features: list[str], keys: list[int]) -> dict[str, list[Any]]:
    status, answer = server.columns({"features": [f"{view}:{name}" for name in features], "entities": {"k": keys}})
    if status != 200:
        return {name: [f"{status} {answer}"] for name in features}
    return {
        name: [value if status == "PRESENT" else status for value, status in zip(answer[name]["values"], answer[name]["statuses"])]
        for name in features
    }


def same(declared: str, ours: list[Any], theirs: list[Any]) -> bool:
    """Returns whether two columns are equal, including the types of numbers. Ignores the order of sets."""

    def plain(value: Any) -> str:
        if declared.startswith("Set(") and isinstance(value, list):
            value = sorted(value, key=json.dumps)
        return json.dumps(value, sort_keys=not declared.startswith("Json"))

    return [plain(value) for value in ours] == [plain(value) for value in theirs]


# The reasons why Larder serves another value than Feast on purpose. docs/src/reference/values.md has the same list.
EXACT = "numbers are exact, but pandas converts integers to doubles if there are nulls"
TOO_LARGE = "a number outside the range of the type is null, not infinity"
TOO_FAR = "a timestamp outside the range of 64-bit microseconds"
NOT_ONE = "text that is not a value of the type, which Feast's client cannot read either"
NOT_A_LIST = "text, bytes and mappings are not lists, but Feast stores their characters or keys as items"
NOT_A_MAPPING = "only a mapping is a struct, but Feast wraps the text of other values"
NOT_A_TIME = "a float is not a timestamp, but Feast stores its placeholder for null"
NOT_JSON = "NaN and the infinities are not JSON"
NOT_A_VALUE = "a list or a mapping is not a scalar, but Feast stores null"
NULL_IN_SET = "nulls in a set become one default value of the type"

# The exact values, in cases in which Feast converts values to doubles.
IN_FILES: dict[tuple[str, str], list[Any]] = {
    ("Int64", "int64_with_null"): [2**53 + 1, None, 0],
    ("String", "int64_with_null"): [str(2**53 + 1), None, "0"],
    ("Json", "int64_with_null"): [str(2**53 + 1), None, "0"],
    ("UnixTimestamp", "int64_with_null"): [None, None, 0],
    ("Array(Json)", "list_int_null"): [["1", "null"]],
    ("Array(Json)", "list_float_null"): [["1.0", "null"]],
    ("Array(Json)", "list_float32"): [["0.5", "0.10000000149011612", "null"]],
    ("Array(Json)", "bytes_json"): [["1", "2"], None],
}
IN_PUSHES: dict[tuple[str, str], Any] = {
    ("Array(Json)", "[1,null]"): ["1", "null"],
    ("Array(Json)", "[1.5,null]"): ["1.5", "null"],
    ("Array(Json)", "[1.5,NaN]"): ["1.5", "null"],
    ("Array(Json)", "[1,1.5]"): ["1", "1.5"],
}


def is_one(declared: str, text: Any) -> bool:
    """Returns whether a text is a value of its type."""
    if "Uuid" in declared:
        return is_readable(UUIDType, text)
    if "Decimal" in declared:
        return is_readable(Decimal, text)
    return is_readable(lambda text: json.loads(text, parse_constant=refuse), text)


def refuse(constant: str) -> None:
    """Rejects NaN and the infinities, which Python accepts although they are not JSON."""
    raise ValueError(constant)


def is_readable(read: Any, text: Any) -> bool:
    try:
        read(text)
        return True
    except (ValueError, ArithmeticError):
        return False


def stored_difference(declared: str, theirs: Any) -> str | None:
    """Returns the reason why Larder serves null for a value in Feast's store, or None if it serves the value."""
    items = theirs if isinstance(theirs, list) else [theirs]
    if "UnixTimestamp" in declared:
        seconds = [item for item in items if isinstance(item, int) and item != NULL_INSTANT]
        return TOO_FAR if any(abs(item) > 2**63 // 10**6 for item in seconds) else None
    if any(kind in declared for kind in ("Uuid", "Decimal", "Json")):
        texts = [item for item in items if isinstance(item, str) and (item or not isinstance(theirs, list))]
        if not all(is_one(declared, text) for text in texts):
            return NOT_JSON if "Json" in declared else NOT_ONE
    return None


def difference(declared: str, case: str, theirs: Any) -> tuple[str, bool] | None:
    """Returns the reason why Larder serves null for a value that Feast accepts, and whether Larder rejects a push of it.
    Returns None if Larder serves the value."""
    is_list = declared.startswith(("Array(", "Set("))
    is_text = case.startswith(("text", "dictionary", '"'))
    is_mapping = case.startswith(("struct", "{"))
    if is_list and theirs is not None and (is_text or is_mapping or (case == "bytes" and "Bytes" not in declared)):
        return NOT_A_LIST, True
    if "(Array)" in declared and theirs is not None:
        inner = case.startswith(("list_text", "list_uuid", "list_bytes", "list_struct", "list_large", '["', "[{"))
        if inner and theirs:
            return NOT_A_LIST, True
    if declared == "Struct" and isinstance(theirs, dict) and "_value" in theirs:
        return NOT_A_MAPPING, case != "NaN"
    if not is_list and declared not in ("Json", "Map", "Struct") and theirs is None and case[0] in "[{":
        return NOT_A_VALUE, True
    if declared == "UnixTimestamp" and (case.startswith("float") or case in FLOATS) and theirs is not None:
        return NOT_A_TIME, case != "NaN"
    large = ("float64_1e39", "list_float_1e39", "text_1e39", "1e39", "[1e39]", '"1E+39"')
    if "Float32" in declared and case in large and theirs in ("Infinity", ["Infinity"]):
        return TOO_LARGE, True
    if declared == "Json" and theirs == "NaN" and case == "NaN":
        return NOT_JSON, False
    why = stored_difference(declared, theirs)
    return (why, True) if why else None


def main() -> None:
    program, base = sys.argv[1], Path(sys.argv[2])
    os.environ.update(environment())
    # Feast logs each value that it rejects.
    logging.disable(logging.CRITICAL)
    checks, feast, odd = Checks(), Feast(base / "repo"), columns()
    keys = list(range(1, ROWS + 1))
    head = {"k": pa.array(keys), "event_timestamp": pa.array([AT] * ROWS, pa.timestamp("us"))}
    good = {"good": pa.array([7] * ROWS)}
    yaml = "entities: [{name: k, type: Int64}]\nfeature_views:\n"

    def declare(name: str, fields: list[str], declared: str, rest: str) -> None:
        nonlocal yaml
        listed = "".join(f'{{name: {field}, type: "{declared}"}}, ' for field in fields)
        yaml += f"  - {{name: {name}, entities: [k], {rest}, features: [{listed}{{name: good, type: Int64}}]}}\n"

    views: list[View] = []
    for place, (declared, dtype) in enumerate(TYPES.items()):
        cases = {f"c{i}": case for i, case in enumerate(odd)}
        taken = {name: case for name, case in cases.items() if feast_takes(pa.table({"f": odd[case]}).to_pandas(), dtype)}
        left = {name: case for name, case in cases.items() if name not in taken}
        file, other = base / f"repo/data/file_{place}.parquet", base / f"repo/data/left_{place}.parquet"
        pq.write_table(pa.table(head | good | {name: odd[case] for name, case in taken.items()}), file)
        pq.write_table(pa.table(head | good | {name: odd[case] for name, case in left.items()}), other)
        declare(f"file_{place}", [*taken], declared, f"source: {{path: {file}}}")
        declare(f"left_{place}", [*left], declared, f"source: {{path: {other}}}")

        texts = {f"p{i}": text for i, text in enumerate(PUSHED)}
        pushed = {name: text for name, text in texts.items() if feast_takes(pushed_frame(text), dtype)}
        declare(f"push_{place}", [*pushed], declared, f"push_source: push_{place}")
        declare(f"alone_{place}", ["f"], declared, f"push_source: alone_{place}")
        views.append(
            View(
                declared,
                place,
                feast.view(f"file_{place}", file, dict.fromkeys(taken, dtype) | {"good": types.Int64}, pushed=False),
                taken,
                left,
                feast.view(f"push_{place}", file, dict.fromkeys(pushed, dtype) | {"good": types.Int64}, pushed=True),
                pushed,
                [text for name, text in texts.items() if name not in pushed],
            )
        )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        feast.store.apply([feast.entity, *(view for of in views for view in (of.by_file, of.by_push))])
        feast.store.materialize(
            datetime(2020, 1, 1), datetime(2026, 11, 2), feature_views=[of.by_file.name for of in views]
        )
    for of in views:
        feast.store.push(f"push_push_{of.place}", pd.DataFrame(json.loads(frame(1, of.pushed))), to=PushMode.ONLINE)

    ours = larder(program, base / "larder", yaml)
    stored = larder_server(program, base / "repo", None).until_healthy("/ready")
    try:
        for of in views:
            files(checks, of, ours, stored, feast, keys)
            pushes(checks, of, ours, stored, feast)
    finally:
        ours.kill()
        stored.kill()
    checks.end()


@dataclass
class View:
    """The views of one type, and the cases that Feast accepts (`taken`, `pushed`) and rejects (`left`, `alone`)."""

    declared: str
    place: int
    by_file: FeatureView
    taken: dict[str, str]
    left: dict[str, str]
    by_push: FeatureView
    pushed: dict[str, str]
    alone: list[str]


def frame(key: int, pushed: dict[str, str]) -> str:
    """Returns the data frame of one row, as JSON."""
    cells = "".join(f',"{name}":[{text}]' for name, text in pushed.items())
    return f'{{"k":[{key}],"event_timestamp":["2026-11-01T00:00:00Z"],"good":[7]{cells}}}'


def hold(checks: Checks, what: str, declared: str, ours: list[Any], theirs: list[Any], whys: list[str | None]) -> None:
    """Compares a column of Larder with Feast's. If there is a reason, the expected value is null."""
    expected = [None if why else value for value, why in zip(theirs, whys)]
    if same(declared, ours, expected):
        expected = ours
    checks.equal(f"{what} {[why for why in whys if why][:1]}", ours, expected)


def once(value: Any) -> Any:
    """Returns the items of a set as Larder stores them: each item once, and the empty text for a null."""
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    for item in value:
        item = "" if item == "None" else item
        if item not in items or isinstance(item, float) and str(item) not in map(str, items):
            items.append(item)
    return items


def files(checks: Checks, of: View, ours: Server, stored: Server, feast: Feast, keys: list[int]) -> None:
    theirs = feast.values(of.by_file, keys)
    found = served(ours, of.by_file.name, [*of.taken, "good"], keys)
    as_stored = served(stored, of.by_file.name, [*of.taken, "good"], keys)
    checks.equal(f"{of.declared}: the other feature", [found["good"], as_stored["good"]], [[7] * ROWS] * 2)
    for name, case in of.taken.items():
        values, what = theirs[name], f"{of.declared} from {case}"
        whys = [stored_difference(of.declared, value) for value in values]
        hold(checks, f"stored: {what}", of.declared, as_stored[name], values, whys)
        if of.declared.startswith("Set("):
            values = [once(value) for value in values]
        if exact := IN_FILES.get((of.declared, case)):
            values = [exact[row % len(exact)] for row in range(ROWS)]
        reasons = [None if exact else difference(of.declared, case, value) for value in values]
        hold(checks, f"file: {what}", of.declared, found[name], values, [why and why[0] for why in reasons])
    # A value that Feast rejects does not affect other features of the row.
    found = served(ours, f"left_{of.place}", [*of.left, "good"], keys)
    checks.equal(f"file: {of.declared}: next to values that Feast rejects", found["good"], [7] * ROWS)
    for name, case in of.left.items():
        checks.true(f"file: {of.declared} from {case}", "NOT_FOUND" not in found[name], found[name])


def pushes(checks: Checks, of: View, ours: Server, stored: Server, feast: Feast) -> None:
    raw = feast.values(of.by_push, [1])
    is_set = of.declared.startswith("Set(")
    theirs = {name: once(values[0]) if is_set else values[0] for name, values in raw.items()}
    found = served(stored, of.by_push.name, [*of.pushed], [1])
    for name, text in of.pushed.items():
        value = raw[name][0]
        why = stored_difference(of.declared, value)
        hold(checks, f"stored: {of.declared} from {text}", of.declared, found[name], [value], [why])
    reasons = {name: difference(of.declared, text, theirs[name]) for name, text in of.pushed.items()}
    reasons |= {name: None for name, text in of.pushed.items() if (of.declared, text) in IN_PUSHES}
    refused = [name for name, why in reasons.items() if why and why[1]]
    # A push needs all columns of the view, so columns with values that Larder rejects are null here.
    texts = {name: "null" if name in refused else text for name, text in of.pushed.items()}
    body = {"push_source_name": f"push_{of.place}", "df": json.loads(frame(1, texts))}
    checks.equal(f"push: {of.declared}", ours.post("/push", body), (200, None))
    found = served(ours, of.by_push.name, [*of.pushed], [1])
    for name, text in of.pushed.items():
        if name not in refused:
            value = IN_PUSHES.get((of.declared, text), theirs[name])
            why = reasons[name]
            hold(checks, f"push: {of.declared} from {text}", of.declared, found[name], [value], [why and why[0]])
    # The error of a rejected push names the column, and nothing is written.
    for key, text in enumerate([*(of.pushed[name] for name in refused), *of.alone], start=2):
        body = {"push_source_name": f"alone_{of.place}", "df": json.loads(frame(key, {"f": text}))}
        status, error = ours.post("/push", body)
        written = served(ours, f"alone_{of.place}", ["good"], [key])["good"]
        if status == 200 and text in of.alone:
            checks.equal(f"push: {of.declared} from {text}: accepted", written, [7])
        else:
            checks.equal(f"push: {of.declared} from {text}: rejected", (status, written), (400, ["NOT_FOUND"]))
            words = "column 'f', row 0: "
            checks.true(f"push: {of.declared} from {text}: the message", words in error["message"], error)


if __name__ == "__main__":
    main()
