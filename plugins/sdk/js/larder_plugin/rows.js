/** Calls a plugin's function for the rows of a batch, or for whole columns. */

import { Fault, described, shown, trace } from "./errors.js";
import { Column, decoded, padded } from "./frame.js";
import { FITS, Mismatch, VIEWS, outputConverter } from "./values.js";

const EngineDate = Date;

/** The second argument of a plugin's function. See `Context` in index.d.ts. */
export class Context {
  constructor(plugin) {
    this.config = null;
    this.instant = undefined;
    this.readsTime = plugin.readsTime;
  }

  get asOf() {
    if (!this.readsTime) throw new Fault("context.asOf is undefined. hint: declare readsTime: true");
    return this.instant;
  }

  get time() {
    return new EngineDate(Math.floor(Number(this.asOf) / 1000));
  }
}

/**
 * Returns the function that computes the rows of a batch. Its arguments are the input columns with `null` for nulls, the
 * number of rows, the reference times and the configuration. It returns the output columns and the failed rows.
 *
 * The loop over rows is generated for the names and types of the plugin, because reading properties by computed names takes
 * several times as long. All rows use the same sealed object, whose properties are set for each row.
 */
export function byRow(plugin) {
  const inputs = Object.entries(plugin.inputs);
  const outputs = Object.keys(plugin.outputs);
  const lacking = inputs.flatMap(([, { required }], index) => (required ? [`i${index}[at] === null`] : []));
  const loop = compile(plugin, ["rows", "columns", "results", "context", "instants", "fail"], `
    const ${inputs.map((_, index) => `i${index} = columns[${index}], `).join("")}
      ${resultNames(plugin, (index) => `o${index} = results[${index}]`)};
    const call = derive;
    let r, v;
    for (let at = 0; at < rows; at++) {
      ${lacking.length > 0 ? `if (${lacking.join(" || ")}) { ${outputs.map((_, index) => `o${index}[at] = null;`).join(" ")} continue; }` : ""}
      ${inputs.map(([name], index) => `row.${name} = i${index}[at];`).join(" ")}
      ${plugin.readsTime ? "context.instant = instants[at];" : ""}
      try { ${callAndCheck(plugin, (index, value) => `o${index}[at] = ${value}`)} } catch (error) { fail(at, error); }
    }`);
  const context = new Context(plugin);
  return (columns, rows, instants, config) => {
    const results = outputs.map(() => new Array(rows));
    const failures = new Failures();
    context.config = config;
    loop(rows, columns, results, context, instants, (row, error) => {
      for (const values of results) values[row] = null;
      failures.add(row, error);
    });
    return { results, failed: failures.rows };
  };
}

/** The rows that failed in a batch. */
export class Failures {
  constructor() {
    this.rows = [];
    this.isLogged = false;
  }

  add(row, error) {
    const isExplained = error instanceof Mismatch || error instanceof Fault;
    // One stack per batch is enough to find the cause.
    if (!isExplained && !this.isLogged) console.error(trace(error));
    this.isLogged ||= !isExplained;
    this.rows.push({ row, message: error instanceof Mismatch ? error.message : described(error) });
  }
}

// === Generated code ===

/**
 * Compiles a function that calls `derive`. Its body can use `row`, the sealed object of inputs, `derive`, and the functions
 * of `callAndCheck`.
 */
export function compile(plugin, parameters, body) {
  const names = Object.keys(plugin.outputs);
  const inputs = Object.keys(plugin.inputs).map((name) => `${name}: null`);
  const kit = {
    derive: plugin.derive,
    only,
    check: (result) => checkResult(result, names),
    converters: names.map((name) => outputConverter(name, plugin.outputs[name], names)),
    decoded,
    padded,
  };
  const make = new Function("kit", `
    "use strict";
    const { derive, only, check, decoded, padded } = kit, ${resultNames(plugin, (index) => `f${index} = kit.converters[${index}]`)};
    const row = Object.seal({ ${inputs.join(", ")} });
    return (${parameters.join(", ")}) => {${body}};`);
  return make(kit);
}

const resultNames = (plugin, item) => Object.keys(plugin.outputs).map((_, index) => item(index)).join(", ");

/** Returns code that calls `derive` with `row` and `context`, and stores each checked output by the code of `store`. */
export function callAndCheck(plugin, store) {
  const outputs = Object.entries(plugin.outputs);
  const fits = ({ type, nullable }) =>
    [...(nullable === false ? [] : ["v === null"]), ...(type.isList ? [] : [FITS[type.scalar]])].join(" || ") || "false";
  if (outputs.length === 1) {
    const [[name, field]] = outputs;
    return `r = v = call(row, context); ${store(0, `${fits(field)} ? v : f0(only(r, "${name}"), r)`)};`;
  }
  const stores = outputs.map(([name, field], index) => `v = r.${name}; ${store(index, `${fits(field)} ? v : f${index}(v, r)`)};`);
  return `r = call(row, context); if (r === null || typeof r !== "object" || r instanceof Promise) check(r); ${stores.join(" ")}`;
}

/** Returns the value of the only output: the result, or its property. */
function only(result, name) {
  const isPlain = typeof result === "object" && result !== null && Object.getPrototypeOf(result) === Object.prototype;
  return isPlain ? result[name] : result;
}

/** Throws a Mismatch if the result of a plugin with several outputs is not an object. */
function checkResult(result, names) {
  if (typeof result === "object" && result !== null && !(result instanceof Promise)) return;
  const listed = names.length <= 6 ? names.join(", ") : `${names.slice(0, 6).join(", ")}, ...`;
  if (result instanceof Promise) throw new Mismatch("the function returned a Promise. hint: remove 'async'; a plugin cannot wait");
  const missing = result === undefined ? " (is a return missing?)" : "";
  throw new Mismatch(`the function returned ${shown(result)}${missing}; expected an object with ${listed}`);
}

/** Returns the function that computes columns. Its arguments are those of `byRow`, but with a Column for each input. */
export function byColumns(plugin) {
  const names = Object.keys(plugin.outputs);
  const inputs = Object.entries(plugin.inputs);
  const converters = names.map((name) => outputConverter(name, plugin.outputs[name], names));
  const context = new Context(plugin);
  return (columns, rows, instants, config) => {
    context.config = config;
    context.instant = instants;
    context.rows = rows;
    const result = plugin.deriveColumns(Object.fromEntries(inputs.map(([name], index) => [name, columns[index]])), context);
    checkResult(result, names);
    // A row that lacks a required input has no outputs.
    const lacking = columns.filter((column, index) => inputs[index][1].required && column.hasNulls);
    const results = names.map((name, index) => {
      const values = outputValues(name, plugin.outputs[name], result[name], rows, (value) => converters[index](value, result));
      if (lacking.length === 0) return values;
      return Array.from(values, (value, row) => (lacking.every((column) => column.present[row]) ? value : null));
    });
    return { results, failed: [] };
  };
}

/** Returns the values of an output of `deriveColumns`, with `null` for each null. */
function outputValues(name, { type, nullable }, returned, rows, convert) {
  if (returned === undefined || returned === null) convert(undefined);
  const isColumn = returned instanceof Column || (!Array.isArray(returned) && "values" in Object(returned) && "present" in returned);
  const { values, present } = isColumn ? returned : { values: returned };
  const View = VIEWS[type.scalar];
  const isTyped = !type.isList && View !== undefined && values instanceof View;
  if (!isTyped && !Array.isArray(values)) {
    throw new Mismatch(`output '${name}' (${type.typeName}): expected ${View?.name ?? "Array"} with a value per row, got ${shown(values)}`);
  }
  for (const each of present ? [values, present] : [values]) {
    if (each.length !== rows) throw new Mismatch(`output '${name}': ${each.length} values for ${rows} rows`);
  }
  const hasNulls = present !== undefined && present.includes(0);
  if (hasNulls && nullable === false) convert(null);
  if (isTyped && type.scalar !== "bool" && !hasNulls) return values;
  const plain = isTyped && type.scalar === "bool" ? Array.from(values, Boolean) : Array.from(values);
  if (hasNulls) for (let row = 0; row < rows; row++) if (!present[row]) plain[row] = null;
  return isTyped ? plain : plain.map((value) => (value === null && hasNulls ? null : convert(value)));
}
