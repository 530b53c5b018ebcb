/**
 * Computes a frame of one row, which most requests have, in a fraction of the time that a batch needs.
 *
 * In the frame of one row, the presence and the slot of each column are 8 bytes each, so that a value without a tail is at a
 * fixed offset. Plugins with lists use the code for batches.
 */

import { write } from "./frame.js";
import { Context, Failures, callAndCheck, compile } from "./rows.js";
import { VIEWS } from "./values.js";

const GETTERS = {
  bool: (at) => `view.getUint8(${at}) === 1`,
  int32: (at) => `view.getInt32(${at}, true)`,
  int64: (at) => `view.getBigInt64(${at}, true)`,
  float32: (at) => `view.getFloat32(${at}, true)`,
  float64: (at) => `view.getFloat64(${at}, true)`,
  timestamp: (at) => `view.getBigInt64(${at}, true)`,
};
const SETTERS = {
  bool: (at) => `out.setUint8(${at}, v ? 1 : 0)`,
  int32: (at) => `out.setInt32(${at}, v, true)`,
  int64: (at) => `out.setBigInt64(${at}, v, true)`,
  float32: (at) => `out.setFloat32(${at}, v, true)`,
  float64: (at) => `out.setFloat64(${at}, v, true)`,
  timestamp: (at) => `out.setBigInt64(${at}, v, true)`,
};
const COLUMN_BYTES = 16;
const NO_FAILURES = [];

/** Returns the function of a frame and the configuration that computes one row, or `null` if the plugin has lists. */
export function oneRow(plugin) {
  const inputs = Object.entries(plugin.inputs);
  const outputs = Object.values(plugin.outputs);
  if ([...inputs.map(([, field]) => field), ...outputs].some(({ type }) => type.isList)) return null;
  const isFixed = outputs.every(({ type }) => VIEWS[type.scalar]);
  const first = plugin.readsTime ? 1 : 0;
  const size = (inputs.length + first) * COLUMN_BYTES;
  const reads = inputs.map(([name, { type, required }], index) => {
    const at = (index + first) * COLUMN_BYTES;
    const absent = required ? "return null" : `row.${name} = null`;
    const getter = GETTERS[type.scalar]?.(at + 8);
    const piece = `frame.subarray(tail, tail += size)`;
    const present = getter
      ? `row.${name} = ${getter};`
      : `size = view.getUint32(${at + 8}, true); row.${name} = ${type.scalar === "utf8" ? `decoded(${piece})` : piece}; tail = padded(tail);`;
    return `if (view.getUint8(${at}) === 0) ${absent}; else { ${present} }`;
  });
  const store = (index, value) => {
    const at = index * COLUMN_BYTES;
    if (!isFixed) return `results[${index}] = ${value}`;
    const setter = SETTERS[outputs[index].type.scalar](at + 8);
    // The slot of a null is 0. The memory still has the values of the previous row.
    return `v = ${value}; if (v === null) out.setFloat64(${at}, 0), out.setFloat64(${at + 8}, 0); else out.setUint8(${at}, 1), ${setter}`;
  };
  const compute = compile(plugin, ["frame", "context", "out", "results"], `
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    const call = derive;
    let r, v, size = 0, tail = ${size};
    ${plugin.readsTime ? "context.instant = view.getBigInt64(8, true);" : ""}
    ${reads.join("\n")}
    if (tail !== frame.length) throw new RangeError(\`the frame has \${frame.length} bytes instead of \${tail}\`);
    ${callAndCheck(plugin, store)}
    return results;`);
  const context = new Context(plugin);
  const types = outputs.map((field) => field.type);
  // The host copies the frame before the next call.
  const fixed = new Uint8Array(outputs.length * COLUMN_BYTES);
  const out = new DataView(fixed.buffer);
  const nulls = write(types, types.map(() => [null]), 1);
  const computed = { outputs: fixed, failed: NO_FAILURES };
  return (frame, config) => {
    context.config = config;
    let results;
    try {
      results = compute(frame, context, out, isFixed ? NO_FAILURES : new Array(outputs.length));
    } catch (error) {
      const failures = new Failures();
      failures.add(0, error);
      return { outputs: nulls, failed: failures.rows };
    }
    if (results === null) return { outputs: nulls, failed: NO_FAILURES };
    return isFixed ? computed : { outputs: write(types, results.map((value) => [value]), 1), failed: NO_FAILURES };
  };
}
