/**
 * Runs a plugin over rows as the host does, for the plugin's unit tests.
 *
 *     assert.deepEqual(run(ratio, [{ numerator: 1, denominator: 4 }, { numerator: 1 }]), [{ ratio: 0.25 }, { ratio: null }]);
 *
 * The rows are computed as one batch, then each row alone, and then as the reversed batch, because the host may divide a
 * batch at any row. If a row's results differ, `run` throws an error. Functions that plugins do not have throw errors meanwhile.
 */

import { Plugin } from "./declare.js";
import { nearest, shown } from "./errors.js";
import { read, write } from "./frame.js";
import { Instance } from "./instance.js";
import { install } from "./sandbox.js";
import { converter } from "./values.js";

/** The result of a row that failed. All of its outputs are null. */
export class Failed {
  constructor(message) {
    this.message = message;
  }
}

/**
 * Returns the outputs of each row: an object by output, or a Failed. A row is an object by input. A missing input is null.
 * `config` is the derived view's `config` block; the message is thrown if the plugin rejects it. `asOf` is the reference
 * time of all rows in microseconds since 1970 UTC, or an array with one per row.
 */
export function run(plugin, rows, { config = null, asOf = 0n } = {}) {
  if (!(plugin instanceof Plugin)) throw new TypeError(`expected a plugin, as from plugin({ ... }), got ${shown(plugin)}`);
  const instants = Array.isArray(asOf) ? asOf : rows.map(() => asOf);
  if (instants.length !== rows.length) throw new RangeError(`asOf has ${instants.length} times for ${rows.length} rows`);
  const checked = rows.map((row, index) => checkedRow(plugin, row, index));
  const restore = install();
  try {
    const instance = new Instance(plugin);
    instance.configure(JSON.stringify(config));
    const results = call(instance, checked, instants);
    const log = console.error;
    // The log has the errors of the first calls only.
    console.error = () => {};
    try {
      results.forEach((result, row) => checkSame(row, result, call(instance, [checked[row]], [instants[row]])[0], "alone"));
      const backward = call(instance, checked.toReversed(), instants.toReversed()).reverse();
      results.forEach((result, row) => checkSame(row, result, backward[row], "in the reversed batch"));
    } finally {
      console.error = log;
    }
    return results;
  } finally {
    restore();
  }
}

function checkedRow(plugin, row, index) {
  for (const name of Object.keys(row)) {
    if (!(name in plugin.inputs)) throw new RangeError(`row ${index}: '${name}' is not an input${nearest(name, Object.keys(plugin.inputs))}`);
  }
  return Object.entries(plugin.inputs).map(([name, { type }]) => {
    try {
      return row[name] === undefined || row[name] === null ? null : converter(type)(row[name]);
    } catch (error) {
      throw new TypeError(`row ${index}: input '${name}' (${type.typeName}): ${error.message}`);
    }
  });
}

function call(instance, rows, instants) {
  const columns = instance.types.map((_, index) => rows.map((row) => row[index]));
  if (instance.plugin.readsTime) columns.unshift(instants.map(BigInt));
  let outputs;
  try {
    outputs = instance.transform(rows.length, write(instance.frameTypes, columns, rows.length));
  } catch (message) {
    if (typeof message !== "string") throw message;
    // The host tries parts of a batch that failed.
    return rows.length === 1 ? [new Failed(message)] : rows.flatMap((row, index) => call(instance, [row], [instants[index]]));
  }
  const outputColumns = read(instance.outputTypes, outputs.outputs, rows.length);
  const names = Object.keys(instance.plugin.outputs);
  const values = outputColumns.map((column, index) => column.withNulls(instance.outputTypes[index]));
  const results = rows.map((_, row) => Object.fromEntries(names.map((name, index) => [name, plain(values[index][row])])));
  for (const { row, message } of outputs.failed) results[row] = new Failed(message);
  return results;
}

const plain = (value) => (ArrayBuffer.isView(value) && !(value instanceof Uint8Array) ? Array.from(value) : value);

function checkSame(row, first, again, where) {
  const difference = differing(first, again);
  if (difference === null) return;
  const [before, after, output] = difference;
  throw new Error(
    `row ${row}: the result is ${shown(before)} in the batch, but ${shown(after)} ${where}${output}. ` +
      "hint: a row's outputs must not depend on other rows or on earlier calls",
  );
}

function differing(first, again) {
  if (first instanceof Failed || again instanceof Failed) return first?.message === again?.message ? null : [first, again, ""];
  const name = Object.keys(first).find((output) => !isSame(first[output], again[output]));
  return name === undefined ? null : [first[name], again[name], `, in output '${name}'`];
}

/** Whether two values have the same bits: NaN equals NaN, and 0 differs from -0. */
function isSame(a, b) {
  if (Object.is(a, b)) return true;
  return a?.length !== undefined && typeof a === "object" && a.length === b?.length && Array.from(a).every((item, index) => isSame(item, b[index]));
}
