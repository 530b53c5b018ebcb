/** Tests of frames, with the vectors that all kits share, and of conversions of returned values. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { read, write } from "../larder_plugin/frame.js";
import { types } from "../larder_plugin/index.js";
import { Mismatch, outputConverter } from "../larder_plugin/values.js";

const SCALARS = {
  bool: types.Bool,
  int32: types.Int32,
  int64: types.Int64,
  float32: types.Float32,
  float64: types.Float64,
  utf8: types.String,
  binary: types.Bytes,
  timestamp: types.UnixTimestamp,
};
const NUMBERS = { nan: NaN, inf: Infinity, "-inf": -Infinity };

function typeOf({ scalar, is_list, nullable_items }) {
  return is_list ? types.Array(SCALARS[scalar], { nullableItems: nullable_items }) : SCALARS[scalar];
}

function valueOf(type, value) {
  if (value === null) return null;
  if (Array.isArray(value)) return value.map((item) => valueOf(type, item));
  if (["int64", "timestamp"].includes(type.scalar)) return BigInt(value);
  if (["float32", "float64"].includes(type.scalar)) return NUMBERS[value] ?? Number(value);
  return type.scalar === "binary" ? new Uint8Array(Buffer.from(value, "hex")) : value;
}

const plain = (type, value) => (type.isList && value !== null ? Array.from(value) : value);

test("vectors are read and written", () => {
  const { cases } = JSON.parse(readFileSync(new URL("../../vectors/frames.json", import.meta.url), "utf8"));
  assert.ok(cases.length > 100);
  for (const { types: kinds, rows, columns, frame } of cases) {
    const all = kinds.map(typeOf);
    const values = columns.map((column, index) => column.map((value) => valueOf(all[index], value)));
    const bytes = new Uint8Array(Buffer.from(frame, "hex"));
    const label = `${all.map((type) => type.typeName)}, ${rows} rows`;
    assert.equal(Buffer.from(write(all, values, rows)).toString("hex"), frame, label);
    // The start of a frame may have any alignment.
    for (const offset of [0, 1]) {
      const moved = new Uint8Array(bytes.length + offset);
      moved.set(bytes, offset);
      const found = read(all, moved.subarray(offset), rows).map((column, index) => Array.from(column.withNulls(all[index])));
      const read_ = found.map((column, index) => column.map((value) => plain(all[index], value)));
      assert.deepEqual(read_, values, label);
    }
  }
});

test("frame of wrong size is rejected", () => {
  const frame = write([types.Float64], [[1]], 1);
  assert.throws(() => read([types.Float64], frame.slice(0, 8), 1), RangeError);
  const longer = new Uint8Array(frame.length + 8);
  longer.set(frame);
  assert.throws(() => read([types.Float64], longer, 1), /the frame has 24 bytes instead of 16/);
});

test("columns are typed arrays in the frame", () => {
  const frame = write([types.Float64, types.Array(types.Int64)], [[0.5, null], [[7n], [8n, 9n]]], 2);
  const [floats, lists] = read([types.Float64, types.Array(types.Int64)], frame, 2);
  assert.equal(floats.values.buffer, frame.buffer);
  assert.deepEqual([floats.values, floats.present, floats.hasNulls], [new Float64Array([0.5, 0]), new Uint8Array([1, 0]), true]);
  assert.deepEqual(lists.values, [new BigInt64Array([7n]), new BigInt64Array([8n, 9n])]);
});

test("similar values are converted", () => {
  const convert = (type, value) => outputConverter("x", type("doc"), ["x"])(value);
  assert.equal(convert(types.Int64, 2 ** 53 - 1), 9007199254740991n);
  assert.equal(convert(types.UnixTimestamp, 5), 5n);
  assert.equal(convert(types.Float32, 0.1), Math.fround(0.1));
  assert.ok(Number.isNaN(convert(types.Float32, NaN)));
  assert.equal(convert(types.Float32, Infinity), Infinity);
  assert.deepEqual(convert(types.Array(types.Float64), new Int32Array([1, 2])), [1, 2]);
  assert.deepEqual(convert(types.Array(types.Int64, { nullableItems: true }), [1, null]), [1n, null]);
});

test("wrong value names output and hint", () => {
  const check = (type, value, message) => {
    const convert = outputConverter("x", type("doc"), ["x"]);
    assert.throws(() => convert(value, { x: value }), (error) => error instanceof Mismatch && error.message === message, message);
  };
  check(types.Float64, "a", `output 'x' (Float64): expected a number, got string "a"`);
  check(types.Float64, 1n, "output 'x' (Float64): expected a number, got bigint 1n. hint: convert it with Number()");
  check(types.Float32, 1e39, "output 'x' (Float32): too large for 32 bits: number 1e+39. hint: declare it as Float64");
  check(types.Int32, 1.5, "output 'x' (Int32): expected an integer, got number 1.5. hint: round it with Math.round() or Math.trunc()");
  check(types.Int32, 2 ** 31, "output 'x' (Int32): number 2147483648 is out of range, -2147483648 to 2147483647");
  check(types.Int64, NaN, "output 'x' (Int64): expected a BigInt or an integer, got number NaN. hint: return null for NaN and infinity");
  check(types.Int64, 2 ** 53, "output 'x' (Int64): number 9007199254740992 is not exact. hint: compute with BigInt");
  check(types.Int64, 2n ** 63n, `output 'x' (Int64): bigint ${2n ** 63n}n is out of range, ${-(2n ** 63n)} to ${2n ** 63n - 1n}`);
  check(types.Bool, 1, "output 'x' (Bool): expected true or false, got number 1");
  check(types.String, "\ud800", `output 'x' (String): cannot be encoded as UTF-8: string "\\ud800"`);
  check(types.Bytes, "a", `output 'x' (Bytes): expected a Uint8Array, got string "a"`);
  check(types.Array(types.Int32), 1, "output 'x' (Array(Int32)): expected an array, got number 1");
  const hint = ". hint: declare the type with nullableItems: true";
  check(types.Array(types.String), ["a", null], `output 'x' (Array(String)): item 1: expected a string, got null${hint}`);
  check(types.Float64, Promise.resolve(1), "output 'x' (Float64): got a Promise. hint: remove 'async'; a plugin cannot wait");
});
