/** Tests of declarations, of calls by row and by columns, and of failed rows. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { DeclarationError, Fault, plugin, types } from "../larder_plugin/index.js";
import { Failed, run } from "../larder_plugin/testing.js";

const two = { a: types.Float64("a"), b: types.Float64("b") };

function declared(options) {
  return plugin({ name: "p", version: "1.0.0", inputs: two, outputs: { c: types.Float64("c") }, ...options });
}

/** Runs rows without the stacks that go to the console. */
function quiet(work) {
  const log = console.error;
  const lines = [];
  console.error = (line) => lines.push(line);
  try {
    return [work(), lines];
  } finally {
    console.error = log;
  }
}

test("rows and columns give the same results", () => {
  const byRow = declared({ derive: ({ a, b }) => (a === null || b === null ? null : a - b) });
  const byColumns = declared({
    deriveColumns({ a, b }, { rows }) {
      const values = new Float64Array(rows);
      const present = new Uint8Array(rows);
      for (let row = 0; row < rows; row++) {
        values[row] = a.values[row] - b.values[row];
        present[row] = a.present[row] & b.present[row];
      }
      return { c: { values, present } };
    },
  });
  const rows = Array.from({ length: 70 }, (_, row) => ({ a: row % 3 ? row : null, b: row % 5 ? 0.5 : undefined }));
  const expected = rows.map(({ a, b }) => ({ c: a === null || b === undefined ? null : a - b }));
  assert.deepEqual(run(byRow, rows), expected);
  assert.deepEqual(run(byColumns, rows), expected);
  assert.deepEqual(run(byRow, []), []);
});

test("values have the types of their columns", () => {
  const kinds = ["Bool", "Int32", "Int64", "Float32", "Float64", "String", "Bytes", "UnixTimestamp"];
  const all = [...kinds.map((kind) => types[kind]), ...kinds.map((kind) => types.Array(types[kind], { nullableItems: true }))];
  const fields = (noun) => Object.fromEntries(all.map((type, index) => [`f${index}`, type(noun)]));
  const echo = plugin({ name: "echo", version: "1.0.0", inputs: fields("in"), outputs: fields("out"), derive: (row) => row });
  const values = [true, -5, 2n ** 63n - 1n, 0.5, -0, "Zürich 🙂", new Uint8Array([0, 255]), -1n];
  const lists = values.map((value) => [value, null, value]);
  const row = Object.fromEntries([...values, ...lists].map((value, index) => [`f${index}`, value]));
  const nulls = Object.fromEntries(all.map((_, index) => [`f${index}`, null]));
  assert.deepEqual(run(echo, [row, nulls, row]), [row, nulls, row]);
});

test("required inputs skip rows", () => {
  const inputs = { a: types.Float64("a", { required: true }), b: types.Float64("b") };
  const outputs = { c: types.Float64("c", { nullable: false }), d: types.Bool("d") };
  const expected = [{ c: 1, d: true }, { c: null, d: null }];
  const byRow = declared({ inputs, outputs, derive: ({ a, b }) => ({ c: a, d: b === null }) });
  assert.deepEqual(run(byRow, [{ a: 1 }, { b: 1 }]), expected);
  const byColumns = declared({
    inputs,
    outputs,
    deriveColumns: ({ a, b }) => ({ c: a.values, d: Array.from(b.present, (present) => present === 0) }),
  });
  assert.deepEqual(run(byColumns, [{ a: 1 }, { b: 1 }]), expected);
});

test("error fails only its row", () => {
  const strict = declared({
    derive({ a, b }) {
      if (a < 0) throw new Fault("a is below 0");
      if (b < 0) throw new TypeError("b is below 0");
      if (b === 0) throw "text";
      return a / b;
    },
  });
  const [results, logged] = quiet(() => run(strict, [{ a: 1, b: 2 }, { a: -1 }, { a: 1, b: -1 }, { a: 1, b: 0 }]));
  assert.deepEqual(results.slice(0, 2), [{ c: 0.5 }, new Failed("a is below 0")]);
  assert.match(results[2].message, /^TypeError: b is below 0 \(tests\/plugin\.test\.js:\d+, in derive\)$/);
  assert.equal(results[3].message, 'threw string "text". hint: throw an Error, which has the line');
  assert.match(logged.join(), /^TypeError: b is below 0\n {4}at .*derive \(tests\/plugin\.test\.js:/);
});

test("wrong result fails its row", () => {
  const message = (derive, outputs = { c: types.Float64("c"), d: types.Int32("d") }) =>
    run(declared({ outputs, derive }), [{ a: 1 }])[0].message;
  assert.match(message(() => undefined), /^the function returned undefined \(is a return missing\?\); expected an object with c, d$/);
  assert.match(message(() => 5), /^the function returned number 5; expected an object with c, d$/);
  assert.equal(
    message(() => ({ c: 1, dd: 2 })),
    "the result has no value for output 'd'; it has 'dd', which is not an output (did you mean 'd'?). hint: return null for a missing value",
  );
  assert.match(message(() => Promise.resolve({})), /^the function returned a Promise\. hint: remove 'async'/);
  assert.match(message(() => Promise.resolve(1), { c: types.Float64("c") }), /got a Promise\. hint: remove 'async'/);
  assert.match(message(() => {}, { c: types.Float64("c") }), /returned undefined \(is a return missing\?\)/);
  assert.equal(message(() => null, { c: types.Float64("c", { nullable: false }) }), "output 'c' (Float64): got null, but the output has nullable: false");
});

test("columns of wrong shape fail", () => {
  const message = (c) => run(declared({ deriveColumns: () => ({ c }) }), [{ a: 1 }])[0].message;
  assert.equal(message(new Float64Array(2)), "output 'c': 2 values for 1 rows");
  assert.equal(message({ values: new Float64Array(1), present: new Uint8Array(3) }), "output 'c': 3 values for 1 rows");
  assert.match(message(new Float32Array(1)), /expected Float64Array with a value per row, got Float32Array/);
  assert.match(message(["a"]), /^output 'c' \(Float64\): expected a number, got string "a"$/);
  assert.match(message(undefined), /^the result has no value for output 'c'/);
});

test("reference time is read", () => {
  const outputs = { hour: types.Int32("hour"), asOf: types.UnixTimestamp("time") };
  const timed = declared({
    outputs,
    readsTime: true,
    derive: (_, { asOf, time }) => ({ hour: time.getUTCHours(), asOf }),
  });
  assert.deepEqual(run(timed, [{}, {}], { asOf: [7_200_000_000n, -1n] }), [{ hour: 2, asOf: 7_200_000_000n }, { hour: 23, asOf: -1n }]);
  const untimed = declared({ derive: (_, context) => Number(context.asOf) });
  assert.equal(run(untimed, [{}])[0].message, "context.asOf is undefined. hint: declare readsTime: true");
});

test("config is passed or rejected", () => {
  const configured = declared({
    configure({ factor } = {}) {
      if (typeof factor !== "number") throw new Fault("factor must be a number");
      return { factor };
    },
    derive: ({ a }, { config }) => a * config.factor,
  });
  assert.deepEqual(run(configured, [{ a: 2 }], { config: { factor: 3 } }), [{ c: 6 }]);
  assert.throws(() => run(configured, [], { config: {} }), (message) => message === "factor must be a number");
  const without = declared({ derive: () => null });
  assert.throws(() => run(without, [], { config: { a: 1 } }), (message) => /^plugin 'p' takes no config, got Object/.test(message));
});

test("row and columns functions are compared", () => {
  const deriveColumns = ({ a }) => ({ c: a.values });
  assert.deepEqual(run(declared({ derive: ({ a }) => a, deriveColumns }), [{ a: 1 }, { a: 2 }]), [{ c: 1 }, { c: 2 }]);
  assert.throws(
    () => run(declared({ derive: ({ a }) => a + 1, deriveColumns }), [{ a: 1 }, { a: 2 }]),
    /row 0: the result is number 1 in the batch, but number 2 alone, in output 'c'/,
  );
});

test("row after a null row has its value", () => {
  const echo = declared({ derive: ({ a }) => a });
  assert.deepEqual([{ a: 1 }, {}, { a: 0 }].map((row) => run(echo, [row])[0]), [{ c: 1 }, { c: null }, { c: 0 }]);
});

test("dependence on other rows is found", () => {
  let calls = 0;
  const counting = declared({ derive: () => calls++ });
  assert.throws(() => run(counting, [{}, {}]), /hint: a row's outputs must not depend on other rows/);
  const adding = declared({ derive: (row) => (row.total = 1) });
  assert.match(quiet(() => run(adding, [{}]))[0][0].message, /^TypeError: /);
});

test("all mistakes of declaration are listed", () => {
  const message = (options) => {
    try {
      declared(options);
    } catch (error) {
      assert.ok(error instanceof DeclarationError);
      return error.message;
    }
    return assert.fail("no mistake was found");
  };
  const inputs = { "a-b": types.Float64("x"), c: types.Float64, d: 5, e: types.Float64("x", { nullable: true }) };
  const text = message({ name: "1", version: "1", inputs, outputs: {}, derved: 1 });
  for (const part of [
    `there is no option 'derved' (did you mean 'derive'?)`,
    `name "1": must be a letter`,
    `version "1": must be three numbers`,
    `input 'a-b': a name must be`,
    `input 'c': add a description, as in types.Float64("...")`,
    `input 'd': must be a type with a description, as in types.Float64("..."); got number 5`,
    `input 'e': nullable is only for outputs; use required: true for inputs`,
    `there are no outputs; declare at least one`,
    `there is no function; declare derive, a function of a row, or deriveColumns, a function of columns`,
  ]) {
    assert.ok(text.includes(`\n  ${part}`), `${part} is not in ${text}`);
  }
  assert.match(message({ derive: async () => 1 }), /derive is async; remove 'async'/);
  assert.match(message({ derive: function* () {} }), /derive is a generator/);
  assert.match(message({ derive: 5 }), /derive: must be a function; got number 5/);
  assert.match(message({ inputs: ["a"] }), /inputs: must be an object by name, .* got Array \["a"\]/);
  assert.throws(() => types.Float65, /there is no type 'Float65' \(did you mean 'Float64'\?\)\. hint: the types are Bool, /);
  assert.throws(() => types.Float64(), /Float64 takes a one-line description, as in types\.Float64\("\.\.\."\); got undefined/);
  assert.throws(() => types.Float64("x", { require: true }), /Float64 has no option 'require'/);
  assert.throws(() => types.Array(types.Array(types.Bool)), /types\.Array takes the type of its items/);
});
