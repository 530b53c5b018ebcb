/** Calls a plugin's function for the rows of a batch, or for whole columns. */

import { Fault, described, shown, trace } from "./errors.js";
import { Column } from "./frame.js";
import { FITS, Mismatch, VIEWS, outputConverter } from "./values.js";

const EngineDate = Date;

/** The second argument of a plugin's function. See `Context` in index.d.ts. */
class Context {
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
 */
export function byRow(plugin) {
  const names = Object.keys(plugin.outputs);
  const fields = Object.values(plugin.outputs);
  const converters = names.map((name, index) => outputConverter(name, fields[index], names));
  const loop = compile(plugin, names, fields);
  return (columns, rows, instants, config) => {
    const results = names.map(() => new Array(rows).fill(null));
    const failed = [];
    const context = new Context(plugin);
    context.config = config;
    let isLogged = false;
    const fail = (row, error) => {
      for (const values of results) values[row] = null;
      const isExplained = error instanceof Mismatch || error instanceof Fault;
      // One stack per batch is enough to find the cause.
      if (!isExplained && !isLogged) console.error(trace(error));
      isLogged ||= !isExplained;
      failed.push({ row, message: error instanceof Mismatch ? error.message : described(error) });
    };
    loop(rows, columns, results, plugin.derive, context, instants, converters, fail);
    return { results, failed };
  };
}

/**
 * Compiles the loop over rows. It is generated for the names and types of the plugin, because reading properties by
 * computed names takes several times as long. All rows use the same sealed object, whose properties are set for each row.
 */
function compile(plugin, names, fields) {
  const inputs = Object.entries(plugin.inputs);
  const list = (letter, items) => items.map((_, index) => `${letter}${index}`).join(", ");
  const lacking = inputs.flatMap(([, field], index) => (field.required ? [`i${index}[at] === null`] : []));
  const store = (index, value, result) => {
    const { type, nullable } = fields[index];
    const fits = type.isList ? "false" : FITS[type.scalar];
    const isNull = nullable === false ? "" : "v === null || ";
    return `v = ${value}; o${index}[at] = ${isNull}${fits} ? v : f${index}(v, ${result});`;
  };
  const stores =
    names.length === 1
      ? store(0, `only(r, ${JSON.stringify(names[0])})`, "r")
      : `check(r); ${names.map((name, index) => store(index, `r.${name}`, "r")).join(" ")}`;
  const body = `
    const [${list("i", inputs)}] = columns, [${list("o", names)}] = results, [${list("f", names)}] = converters;
    const row = Object.seal({ ${inputs.map(([name]) => `${name}: null`).join(", ")} });
    let r, v;
    for (let at = 0; at < rows; at++) {
      ${lacking.length > 0 ? `if (${lacking.join(" || ")}) continue;` : ""}
      ${inputs.map(([name], index) => `row.${name} = i${index}[at];`).join(" ")}
      ${plugin.readsTime ? "context.instant = instants[at];" : ""}
      try { r = derive(row, context); ${stores} } catch (error) { fail(at, error); }
    }`;
  const parameters = ["rows", "columns", "results", "derive", "context", "instants", "converters", "fail"];
  const make = new Function("only", "check", `return (${parameters.join(", ")}) => {${body}}`);
  return make(only, (result) => checkResult(result, names));
}

/** Returns the value of the only output: the result, or its property. */
function only(result, name) {
  const isPlain = typeof result === "object" && result !== null && Object.getPrototypeOf(result) === Object.prototype;
  return isPlain ? result[name] : result;
}

function checkResult(result, names) {
  if (typeof result === "object" && result !== null && !(result instanceof Promise)) return;
  const listed = names.length <= 6 ? names.join(", ") : `${names.slice(0, 6).join(", ")}, ...`;
  const missing = result === undefined ? " (is a return missing?)" : "";
  throw new Mismatch(`the function returned ${shown(result)}${missing}; expected an object with ${listed}`);
}

/** Returns the function that computes columns. Its arguments are those of `byRow`, but with a Column for each input. */
export function byColumns(plugin) {
  const names = Object.keys(plugin.outputs);
  const inputs = Object.entries(plugin.inputs);
  const converters = names.map((name) => outputConverter(name, plugin.outputs[name], names));
  return (columns, rows, instants, config) => {
    const context = new Context(plugin);
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
