/** Reads and writes frames, the columnar format of the plugin contract. wit/transform.wit describes it. */

import { VIEWS } from "./values.js";

/**
 * A column: `values` has one value per row, and `present` has 1 for each row that has a value and 0 for each null. The
 * value of a null is 0, an empty text or an empty list. Numbers, bools and times are typed arrays in the memory of the
 * frame.
 */
export class Column {
  constructor(values, present, hasNulls) {
    this.values = values;
    this.present = present;
    this.hasNulls = hasNulls;
  }

  /** Returns the values as an array or typed array with `null` for each null, and `true` and `false` for bools. */
  withNulls(type) {
    const isBool = type.scalar === "bool" && !type.isList;
    if (!this.hasNulls && !isBool) return this.values;
    const values = isBool ? Array.from(this.values, Boolean) : Array.from(this.values);
    for (let row = this.present.indexOf(0); row >= 0; row = this.present.indexOf(0, row + 1)) values[row] = null;
    return values;
  }
}

/** Reads the columns of a frame. Throws an error if the frame has another size than these types and rows need. */
export function read(types, frame, rows) {
  // Typed arrays must be aligned in their buffer.
  const parts = new Parts(frame.byteOffset % 8 === 0 ? frame : frame.slice());
  const heads = types.map((type) => ({
    bits: parts.next(Uint8Array, presenceBytes(rows)),
    slots: parts.next(type.isList ? Uint32Array : (VIEWS[type.scalar] ?? Uint32Array), rows),
  }));
  const columns = types.map((type, index) => {
    const { bits, slots } = heads[index];
    const values = type.isList ? readLists(type, parts, slots) : VIEWS[type.scalar] ? slots : readTexts(type, parts, slots);
    return readColumn(values, bits, rows);
  });
  parts.end();
  return columns;
}

/** Writes a frame. A column is an array or typed array with `null` for each null. */
export function write(types, columns, rows) {
  const heads = [];
  const tails = [];
  types.forEach((type, index) => {
    const values = columns[index];
    heads.push(presence(values, rows));
    if (type.isList) {
      heads.push(ends(values));
      tails.push(...itemParts(type, values));
    } else {
      const [slots, ...tail] = valueParts(type.scalar, values);
      heads.push(slots);
      tails.push(...tail);
    }
  });
  return joined([...heads, ...tails]);
}

// === Reading ===

class Parts {
  constructor(frame) {
    this.frame = frame;
    this.at = 0;
  }

  next(View, count) {
    const part = new View(this.frame.buffer, this.frame.byteOffset + this.at, count);
    this.at += padded(part.byteLength);
    return part;
  }

  end() {
    if (this.at !== this.frame.length) throw new RangeError(`the frame has ${this.frame.length} bytes instead of ${this.at}`);
  }
}

function readColumn(values, bits, rows) {
  const present = new Uint8Array(rows).fill(1);
  let hasNulls = false;
  // The bits are in whole words. A word of 32 rows without nulls is -1.
  const words = new Int32Array(bits.buffer, bits.byteOffset, bits.byteLength >> 2);
  for (let first = 0; first < rows; first += 32) {
    const word = words[first >> 5];
    if (word === -1) continue;
    for (let row = first; row < Math.min(first + 32, rows); row++) {
      if (((word >> (row & 31)) & 1) === 0) {
        present[row] = 0;
        hasNulls = true;
      }
    }
  }
  return new Column(values, present, hasNulls);
}

function readTexts(type, parts, slots) {
  const bytes = parts.next(Uint8Array, slots.at(-1) ?? 0);
  if (type.scalar === "binary") return sliced(bytes, slots);
  // Characters below 256 stand for the bytes.
  const raw = binaryString(bytes);
  const texts = sliced(raw, slots);
  return isAscii(raw) ? texts : texts.map((text) => (isAscii(text) ? text : decodeURIComponent(escape(text))));
}

function readLists(type, parts, slots) {
  const count = slots.at(-1) ?? 0;
  const bits = type.nullableItems && parts.next(Uint8Array, presenceBytes(count));
  const View = VIEWS[type.scalar];
  const plain = View ? parts.next(View, count) : readTexts(type, parts, parts.next(Uint32Array, count));
  const item = { scalar: type.scalar, isList: false };
  if (bits) return sliced(Array.from(readColumn(plain, bits, count).withNulls(item)), slots);
  return sliced(type.scalar === "bool" ? Array.from(plain, Boolean) : plain, slots);
}

/** Divides bytes, a string or items at the ends. Typed arrays are not copied. */
function sliced(whole, slots) {
  const slice = ArrayBuffer.isView(whole) ? "subarray" : "slice";
  return Array.from(slots, (end, index) => whole[slice](index === 0 ? 0 : slots[index - 1], end));
}

function binaryString(bytes) {
  // An engine limits the number of arguments of a call.
  const CHUNK = 4096;
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) text += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK));
  return text;
}

/** Returns a text of a frame. */
export function decoded(bytes) {
  const raw = binaryString(bytes);
  return isAscii(raw) ? raw : decodeURIComponent(escape(raw));
}

const isAscii = (text) => !/[^\x00-\x7f]/.test(text);

// === Writing ===

export const padded = (bytes) => (bytes + 7) & ~7;
const presenceBytes = (rows) => ((rows + 63) >>> 6) * 8;

function presence(values, rows) {
  const bits = new Uint8Array(presenceBytes(rows));
  if (!values.includes(null)) {
    bits.fill(255, 0, rows >> 3);
    if (rows & 7) bits[rows >> 3] = 255 >> (8 - (rows & 7));
    return bits;
  }
  for (let row = 0; row < rows; row++) if (values[row] !== null) bits[row >> 3] |= 1 << (row & 7);
  return bits;
}

/** Returns the slots of values, and the bytes of texts. */
function valueParts(scalar, values) {
  const View = VIEWS[scalar];
  if (View) {
    if (values instanceof View) return [values];
    const slots = new View(values.length);
    if (!values.includes(null)) slots.set(values);
    else for (let row = 0; row < values.length; row++) if (values[row] !== null) slots[row] = values[row];
    return [slots];
  }
  if (scalar === "binary") return [ends(values), concatenated(values)];
  // Characters below 256 stand for the bytes.
  const texts = Array.from(values, (text) => (text === null || isAscii(text) ? text : unescape(encodeURIComponent(text))));
  const raw = texts.join("");
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return [ends(texts), bytes];
}

function itemParts(type, lists) {
  const items = [];
  for (const list of lists) if (list !== null) for (const item of list) items.push(item);
  const parts = valueParts(type.scalar, items);
  return type.nullableItems ? [presence(items, items.length), ...parts] : parts;
}

function ends(values) {
  const slots = new Uint32Array(values.length);
  let end = 0;
  for (let row = 0; row < values.length; row++) slots[row] = end += values[row]?.length ?? 0;
  return slots;
}

function concatenated(values) {
  const bytes = new Uint8Array(values.reduce((total, value) => total + (value?.length ?? 0), 0));
  let at = 0;
  for (const value of values) {
    if (value === null) continue;
    bytes.set(value, at);
    at += value.length;
  }
  return bytes;
}

function joined(parts) {
  const frame = new Uint8Array(parts.reduce((total, part) => total + padded(part.byteLength), 0));
  let at = 0;
  for (const part of parts) {
    frame.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at);
    at += padded(part.byteLength);
  }
  return frame;
}
