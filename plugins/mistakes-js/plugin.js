/** Makes the mistake that its configuration names. For tests of the host. Never for production. */

import { Fault, plugin, types } from "./larder_plugin/index.js";

let total = 0;
let first = null;

const recursion = (x) => 1 + recursion(x + 1);

const MISTAKES = {
  none: (x) => ({ y: x }),
  // Functions that a plugin does not have.
  clock: () => ({ y: Date.now() }),
  date: () => ({ y: new Date().getHours() }),
  random: () => ({ y: Math.random() }),
  timer: () => ({ y: setTimeout(() => {}, 1) }),
  network: () => ({ text: fetch("http://rates.example") }),
  environment: () => ({ text: process.env.RATES_KEY }),
  // Results that depend on more than the row.
  running_total: (x) => ({ y: (total += x ?? 1) }),
  first_row: (x) => ({ y: (first ??= x) }),
  // Rows that fail.
  null_property: (x) => ({ y: x.amount.value }),
  mixed_bigint: (x, n) => ({ n: n * 2 }),
  recursion: (x) => ({ y: recursion(x) }),
  fault: () => {
    throw new Fault("there is no rate");
  },
  // Limits.
  endless: () => {
    for (;;);
  },
  memory: () => {
    const kept = [];
    for (;;) kept.push(new Uint8Array(1 << 26));
  },
  // Results that do not match the outputs.
  text_for_number: () => ({ y: "1" }),
  number_for_bigint: () => ({ n: 0.5 }),
  misspelled: () => ({ y: 1, txt: "a", text: undefined }),
  missing: () => undefined,
  promise: () => Promise.resolve({}),
  surrogate: () => ({ text: "\ud800" }),
};

export default plugin({
  name: "mistakes_js",
  version: "1.0.0",
  inputs: { x: types.Float64("A number."), n: types.Int64("An integer.") },
  outputs: {
    y: types.Float64("A number."),
    n: types.Int64("An integer."),
    text: types.String("A text."),
  },
  configure(config) {
    const mistake = MISTAKES[config?.mistake];
    if (mistake === undefined) throw new Fault(`there is no mistake '${config?.mistake}'`);
    return mistake;
  },
  derive({ x, n }, { config }) {
    const result = config(x, n);
    if (result === null || typeof result !== "object" || result instanceof Promise) return result;
    return { y: null, n: null, text: null, ...result };
  },
});
