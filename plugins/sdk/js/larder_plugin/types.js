/** The types of inputs and outputs, with the names that feature definitions use. */

import { DeclarationError, shown } from "./errors.js";

/** A declared input or output. */
export class Field {
  constructor(type, doc, required, nullable) {
    Object.assign(this, { type, doc, required, nullable });
  }
}

/** Returns a type: a function that declares an input or an output of the type. */
function makeType(typeName, scalar, isList = false, nullableItems = false) {
  const type = (doc, options = {}) => {
    if (typeof doc !== "string") {
      throw new DeclarationError(`${typeName} takes a one-line description, as in types.${typeName}("..."); got ${shown(doc)}`);
    }
    for (const name of Object.keys(options)) {
      if (name !== "required" && name !== "nullable") {
        throw new DeclarationError(`${typeName} has no option '${name}'. hint: the options are required and nullable`);
      }
    }
    return new Field(type, doc.trim().replace(/\s+/g, " "), options.required, options.nullable);
  };
  return Object.freeze(Object.assign(type, { typeName, scalar, isList, nullableItems }));
}

export const isType = (value) => typeof value === "function" && "typeName" in value;

/** Returns the type of lists of `item`. With `nullableItems`, items may be `null`. */
function listOf(item, { nullableItems = false } = {}) {
  if (!isType(item) || item.isList) {
    throw new DeclarationError(`types.Array takes the type of its items, as in types.Array(types.Float32); got ${shown(item)}`);
  }
  const option = nullableItems ? ", nullableItems" : "";
  return makeType(`Array(${item.typeName}${option})`, item.scalar, true, Boolean(nullableItems));
}

/** The types by name. index.d.ts has the values of each type. */
export const TYPES = Object.freeze({
  Bool: makeType("Bool", "bool"),
  Int32: makeType("Int32", "int32"),
  Int64: makeType("Int64", "int64"),
  Float32: makeType("Float32", "float32"),
  Float64: makeType("Float64", "float64"),
  String: makeType("String", "utf8"),
  Bytes: makeType("Bytes", "binary"),
  UnixTimestamp: makeType("UnixTimestamp", "timestamp"),
  Array: listOf,
});
