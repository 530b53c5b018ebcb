/** Replaces functions that plugins do not have with functions that throw an error with a hint. */

import { Unavailable } from "./errors.js";

const CLOCK = "a plugin has no clock. hint: declare readsTime: true, and use context.time, the reference time of the row";
const RANDOMNESS =
  "a plugin has no randomness, because the same inputs must give the same outputs. hint: compute the value from the inputs";
const TIMERS = "a plugin cannot wait. hint: call the function directly";
const NETWORK = "a plugin has no network. hint: pass the data as inputs";

const FUNCTIONS = [
  ["Date", ["now"], CLOCK],
  ["Math", ["random"], RANDOMNESS],
  ["Atomics", ["wait", "waitAsync"], TIMERS],
  ["", ["queueMicrotask", "setImmediate", "setInterval", "setTimeout"], TIMERS],
  ["", ["fetch", "EventSource", "WebSocket", "XMLHttpRequest"], NETWORK],
];

/** Installs the replacements, even for functions that the engine lacks. Returns the function that removes them. */
export function install() {
  const undo = [];
  const replace = (owner, name, value) => {
    const before = Object.getOwnPropertyDescriptor(owner, name);
    Object.defineProperty(owner, name, { value, configurable: true, writable: true });
    undo.push(() => (before ? Object.defineProperty(owner, name, before) : delete owner[name]));
  };
  for (const [object, names, reason] of FUNCTIONS) {
    const owner = object ? globalThis[object] : globalThis;
    for (const name of owner ? names : []) replace(owner, name, unavailable(`${object && `${object}.`}${name}()`, reason));
  }
  replace(globalThis, "performance", replacement("performance", ["mark", "measure", "now", "timeOrigin"], CLOCK));
  replace(globalThis, "crypto", replacement("crypto", ["getRandomValues", "randomUUID", "subtle"], RANDOMNESS));
  const clock = Date;
  const checked = new Proxy(clock, {
    apply: unavailable("Date()", CLOCK),
    construct(target, args, newTarget) {
      if (args.length === 0) throw new Unavailable(`new Date() without a time: ${CLOCK}`);
      return Reflect.construct(target, args, newTarget);
    },
  });
  replace(globalThis, "Date", checked);
  // Otherwise, the constructor of any date is the function with the clock.
  replace(clock.prototype, "constructor", checked);
  return () => undo.reverse().forEach((remove) => remove());
}

/** Returns an object whose properties throw an error when they are read. */
function replacement(object, names, reason) {
  const properties = names.map((name) => [name, { get: unavailable(`${object}.${name}`, reason), configurable: true }]);
  return Object.defineProperties({}, Object.fromEntries(properties));
}

function unavailable(called, reason) {
  // An arrow function could not be called with `new`.
  return function () {
    throw new Unavailable(`${called}: ${reason}`);
  };
}
