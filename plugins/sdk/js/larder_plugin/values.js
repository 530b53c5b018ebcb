/** The JavaScript values of each type, and conversions of returned values. */

import { nearest, shown } from "./errors.js";

/** A returned value does not match its output. */
export class Mismatch extends Error {}

/** The typed array of each scalar type whose values have a fixed size. */
export const VIEWS = {
  bool: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float32: Float32Array,
  float64: Float64Array,
  timestamp: BigInt64Array,
};

/** The largest number that rounds to a finite number of 32 bits is below this one. */
const FLOAT32_END = 2 ** 128 - 2 ** 103;

/** For each scalar type, an expression that is true if the value `v` of a result is written without a conversion. */
export const FITS = {
  bool: 'typeof v === "boolean"',
  int32: 'typeof v === "number" && (v | 0) === v',
  int64: 'typeof v === "bigint" && BigInt.asIntN(64, v) === v',
  float32: `typeof v === "number" && v < ${FLOAT32_END} && v > ${-FLOAT32_END}`,
  float64: 'typeof v === "number"',
  utf8: 'typeof v === "string" && v.isWellFormed()',
  binary: "v instanceof Uint8Array",
  timestamp: 'typeof v === "bigint" && BigInt.asIntN(64, v) === v',
};

/** Returns the function that converts a value to the type of a field. It throws a Mismatch if it cannot. */
export function converter(type) {
  const item = CONVERTERS[type.scalar];
  if (!type.isList) return item;
  const View = VIEWS[type.scalar];
  return (value) => {
    if (View && value instanceof View && type.scalar !== "bool") return value;
    if (!Array.isArray(value) && !(ArrayBuffer.isView(value) && !(value instanceof DataView))) {
      throw new Mismatch(`expected an array, got ${shown(value)}`);
    }
    return Array.from(value, (each, index) => {
      if (each === null && type.nullableItems) return null;
      try {
        return item(each);
      } catch (error) {
        if (!(error instanceof Mismatch)) throw error;
        const hint = each === null ? ". hint: declare the type with nullableItems: true" : "";
        throw new Mismatch(`item ${index}: ${error.message}${hint}`);
      }
    });
  };
}

/** Returns the function that converts a value of an output. Its second argument is the result that has the value. */
export function outputConverter(name, field, names) {
  const convert = converter(field.type);
  return (value, result) => {
    if (value === null && field.nullable !== false) return null;
    if (value === undefined) throw new Mismatch(absent(name, result, names));
    const output = `output '${name}' (${field.type.typeName})`;
    if (value === null) throw new Mismatch(`${output}: got null, but the output has nullable: false`);
    if (value instanceof Promise) throw new Mismatch(`${output}: got a Promise. hint: remove 'async'; a plugin cannot wait`);
    try {
      return convert(value);
    } catch (error) {
      if (error instanceof Mismatch) throw new Mismatch(`${output}: ${error.message}`);
      throw error;
    }
  };
}

function absent(name, result, names) {
  if (result === undefined) return "the function returned undefined (is a return missing?). hint: return null for a missing value";
  const unknown = Object.keys(Object(result)).filter((key) => !names.includes(key));
  const typo = unknown.length > 0 ? `; it has '${unknown[0]}', which is not an output${nearest(unknown[0], names)}` : "";
  return `the result has no value for output '${name}'${typo}. hint: return null for a missing value`;
}

const number = (value) => {
  if (typeof value === "number") return value;
  const hint = typeof value === "bigint" ? ". hint: convert it with Number()" : "";
  throw new Mismatch(`expected a number, got ${shown(value)}${hint}`);
};

const float32 = (value) => {
  const rounded = Math.fround(number(value));
  if (Number.isFinite(value) && !Number.isFinite(rounded)) {
    throw new Mismatch(`too large for 32 bits: ${shown(value)}. hint: declare it as Float64`);
  }
  return rounded;
};

const int32 = (value) => {
  if ((number(value) | 0) === value) return value;
  if (Number.isInteger(value)) throw new Mismatch(`${shown(value)} is out of range, ${-(2 ** 31)} to ${2 ** 31 - 1}`);
  throw new Mismatch(`expected an integer, got ${shown(value)}. hint: ${rounding(value)}`);
};

const int64 = (value) => {
  if (typeof value === "number") {
    if (Number.isSafeInteger(value)) return BigInt(value);
    if (Number.isInteger(value)) throw new Mismatch(`${shown(value)} is not exact. hint: compute with BigInt`);
    throw new Mismatch(`expected a BigInt or an integer, got ${shown(value)}. hint: ${rounding(value)}`);
  }
  if (typeof value !== "bigint") throw new Mismatch(`expected a BigInt, got ${shown(value)}`);
  if (BigInt.asIntN(64, value) !== value) {
    throw new Mismatch(`${shown(value)} is out of range, ${-(2n ** 63n)} to ${2n ** 63n - 1n}`);
  }
  return value;
};

const rounding = (value) =>
  Number.isFinite(value) ? "round it with Math.round() or Math.trunc()" : "return null for NaN and infinity";

const bool = (value) => {
  if (typeof value === "boolean") return value;
  throw new Mismatch(`expected true or false, got ${shown(value)}`);
};

const text = (value) => {
  if (typeof value !== "string") throw new Mismatch(`expected a string, got ${shown(value)}`);
  if (!value.isWellFormed()) throw new Mismatch(`cannot be encoded as UTF-8: ${shown(value)}`);
  return value;
};

const binary = (value) => {
  if (value instanceof Uint8Array) return value;
  throw new Mismatch(`expected a Uint8Array, got ${shown(value)}`);
};

const CONVERTERS = { bool, int32, int64, float32, float64: number, utf8: text, binary, timestamp: int64 };
