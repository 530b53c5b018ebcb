/** Declares a plugin, and checks the declaration. */

import { DeclarationError, nearest, shown, textOf } from "./errors.js";
import { Field, isType } from "./types.js";

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;
const VERSION = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/;
const OPTIONS = ["name", "version", "doc", "inputs", "outputs", "readsTime", "configure", "derive", "deriveColumns"];
const EXAMPLE = 'types.Float64("...")';

/** A declared plugin. */
export class Plugin {
  constructor(options) {
    Object.assign(this, { doc: "", readsTime: false, configure: null, derive: null, deriveColumns: null }, options);
    Object.freeze(this);
  }

  /** Whether every output can be null, because rows may lack a required input. */
  get nullableOutputs() {
    return Object.values(this.inputs).some((field) => field.required);
  }
}

/** Declares a plugin. See `PluginOptions` in index.d.ts. Throws a DeclarationError that lists all mistakes. */
export function plugin(options) {
  if (options === null || typeof options !== "object") {
    throw new DeclarationError(`plugin() takes an object, as in plugin({ name: "ratio", ... }); got ${shown(options)}`);
  }
  const mistakes = [];
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name)) mistakes.push(`there is no option '${name}'${nearest(name, OPTIONS)}`);
  }
  const { name, version, doc = "", inputs, outputs, readsTime = false } = options;
  if (typeof name !== "string" || !NAME.test(name)) {
    mistakes.push(`name ${textOf(name)}: must be a letter or _, followed by letters, digits and _`);
  }
  if (typeof version !== "string" || !VERSION.test(version)) {
    mistakes.push(`version ${textOf(version)}: must be three numbers, as in "1.0.0"`);
  }
  if (typeof doc !== "string") mistakes.push(`doc: must be a string; got ${shown(doc)}`);
  if (typeof readsTime !== "boolean") mistakes.push(`readsTime: must be true or false; got ${shown(readsTime)}`);
  checkFields("input", inputs, mistakes);
  checkFields("output", outputs, mistakes);
  if (outputs && Object.keys(outputs).length === 0) mistakes.push("there are no outputs; declare at least one");
  const functions = ["derive", "deriveColumns"].filter((option) => options[option] !== undefined);
  if (functions.length === 0) {
    mistakes.push("there is no function; declare derive, a function of a row, or deriveColumns, a function of columns");
  }
  for (const option of ["configure", ...functions]) checkFunction(option, options[option], mistakes);
  if (mistakes.length > 0) {
    throw new DeclarationError(`plugin ${textOf(name)} is declared incorrectly:\n${mistakes.map((text) => `  ${text}`).join("\n")}`);
  }
  return new Plugin(options);
}

function checkFields(noun, fields, mistakes) {
  if (fields === null || typeof fields !== "object" || Array.isArray(fields)) {
    mistakes.push(`${noun}s: must be an object by name, as in { amount: ${EXAMPLE} }; got ${shown(fields)}`);
    return;
  }
  for (const [name, field] of Object.entries(fields)) {
    if (!NAME.test(name)) mistakes.push(`${noun} '${name}': a name must be a letter or _, followed by letters, digits and _`);
    if (isType(field)) {
      mistakes.push(`${noun} '${name}': add a description, as in types.${field.typeName}("...")`);
    } else if (!(field instanceof Field)) {
      mistakes.push(`${noun} '${name}': must be a type with a description, as in ${EXAMPLE}; got ${shown(field)}`);
    } else if (noun === "input" && field.nullable !== undefined) {
      mistakes.push(`input '${name}': nullable is only for outputs; use required: true for inputs`);
    } else if (noun === "output" && field.required !== undefined) {
      mistakes.push(`output '${name}': required is only for inputs; use nullable: false for outputs`);
    }
  }
}

function checkFunction(option, value, mistakes) {
  if (value === undefined) return;
  const kind = typeof value === "function" ? value.constructor.name : "";
  if (kind === "") {
    mistakes.push(`${option}: must be a function; got ${shown(value)}`);
  } else if (kind.startsWith("Async")) {
    mistakes.push(`${option} is async; remove 'async', because a plugin cannot wait`);
  } else if (kind !== "Function") {
    mistakes.push(`${option} is a generator; return the outputs instead`);
  }
}
