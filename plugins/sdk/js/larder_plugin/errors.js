/** The errors of the kit, and the parts of messages. */

/** An error whose message is passed on unchanged. Thrown by `derive`, it fails the row; by `configure`, it rejects the config. */
export class Fault extends Error {}
Fault.prototype.name = "Fault";

/** A plugin is declared incorrectly. The message lists all mistakes. */
export class DeclarationError extends TypeError {}
DeclarationError.prototype.name = "DeclarationError";

/** A plugin called a function that plugins do not have. Larder finds these errors by the name. */
export class Unavailable extends Error {}
Unavailable.prototype.name = "Unavailable";

const TEXT_MAX = 500;
/** The beginning of the paths of the project's files in stacks. In a component, the project is the root directory. */
const PROJECT = import.meta.url?.replace(/larder_plugin\/[^/]*$/, "") ?? "/";
const KIT = `${PROJECT}larder_plugin/`;

/** Returns the message for an error of the plugin's code: `TypeError: no rate (plugin.js:12, in derive)`. */
export function described(error) {
  if (error instanceof Fault) return wellFormed(error.message);
  if (!(error instanceof Error)) return `threw ${shown(error)}. hint: throw an Error, which has the line`;
  let text = error.message ? `${error.name}: ${error.message}` : String(error.name);
  if (text.length > TEXT_MAX) text = `${text.slice(0, TEXT_MAX)}...`;
  const [problem, ...hint] = text.split(". hint: ");
  const [where] = frames(error);
  const called = where?.called ? `, in ${where.called}` : "";
  return wellFormed([where ? `${problem} (${where.file}:${where.line}${called})` : problem, ...hint].join(". hint: "));
}

/** Formats an error with the frames of its stack that are in the project. */
export function trace(error) {
  if (!(error instanceof Error)) return `threw ${shown(error)}`;
  const lines = frames(error).map(({ file, line, called }) => `    at ${called || "<top>"} (${file}:${line})`);
  return wellFormed([`${error.name}: ${error.message}`, ...lines].join("\n"));
}

/** Returns the project's frames of an error, the innermost one first. */
function frames(error) {
  const found = [];
  for (const text of String(error.stack ?? "").split("\n")) {
    const [, called, path, line] = /^\s*at (?:(.*) \()?(.*?):(\d+):\d+\)?$/.exec(text) ?? [];
    if (path?.startsWith(PROJECT) && !path.startsWith(KIT)) {
      found.push({ called: /[\w.]+$/.exec(called ?? "")?.[0], file: path.slice(PROJECT.length), line });
    }
  }
  return found;
}

/** Formats a value for a message as its type and its truncated text: `string "abc"`. */
export function shown(value) {
  if (value === null || value === undefined) return String(value);
  const kind = typeof value === "object" ? (value.constructor?.name ?? "object") : typeof value;
  if (typeof value === "function") return `function ${value.name}`;
  const text = textOf(value);
  return `${kind} ${text.length > 60 ? `${text.slice(0, 57)}...` : text}`;
}

/** Formats a value like JSON, with `1n` for the BigInt 1. */
export function textOf(value) {
  if (typeof value === "number" || typeof value === "symbol") return Object.is(value, -0) ? "-0" : String(value);
  if (typeof value === "bigint") return `${value}n`;
  try {
    const text = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `${item}n` : item));
    return text ?? String(value);
  } catch (error) {
    return `(its text throws ${error?.name})`;
  }
}

/** Replaces characters that cannot be encoded as UTF-8, because the host does not accept them. */
export const wellFormed = (text) => String(text).toWellFormed();

/** Returns ` (did you mean 'x'?)` if a known name is similar to the given one, and otherwise an empty text. */
export function nearest(written, known) {
  const distances = [...known].map((name) => [distance(written, name), name]).sort(([a], [b]) => a - b);
  const [best, name] = distances[0] ?? [Infinity];
  return best <= Math.max(1, Math.floor(written.length / 3)) ? ` (did you mean '${name}'?)` : "";
}

/** Returns the number of characters to insert, remove or replace (Levenshtein distance). */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
