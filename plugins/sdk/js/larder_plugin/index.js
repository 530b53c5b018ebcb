/**
 * Derived features for Larder, written as plain functions.
 *
 *     import { plugin, types } from "./larder_plugin/index.js";
 *
 *     export default plugin({
 *       name: "ratio",
 *       version: "1.0.0",
 *       inputs: { numerator: types.Float64("The numerator."), denominator: types.Float64("The denominator.") },
 *       outputs: { ratio: types.Float64("The ratio; null if an input is null or the denominator is 0.") },
 *       derive: ({ numerator, denominator }) =>
 *         numerator === null || !denominator ? null : numerator / denominator,
 *     });
 *
 * A missing value is `null`. If `derive` throws, only its row fails: its outputs are null, and the other rows are served.
 * `index.d.ts` documents all options. `testing.js` runs a plugin in a unit test as the host does.
 *
 * A plugin has no clock, randomness, network, files or timers. Calls that need them throw an error with a hint.
 */

import { DeclarationError, nearest } from "./errors.js";
import { TYPES } from "./types.js";

export { plugin } from "./declare.js";
export { DeclarationError, Fault } from "./errors.js";

/** The types by name. Reading another name throws an error, instead of the error that `undefined` is not a function. */
export const types = new Proxy(TYPES, {
  get(target, name) {
    if (name in target || typeof name === "symbol") return target[name];
    const names = Object.keys(target);
    throw new DeclarationError(`there is no type '${name}'${nearest(name, names)}. hint: the types are ${names.join(", ")}`);
  },
});

export const VERSION = "0.3.0";
