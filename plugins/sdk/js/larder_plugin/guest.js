/** The plugin as a component. Only the module that `larder plugin build` generates imports this module. */

import { Plugin } from "./declare.js";
import { DeclarationError, shown, textOf, wellFormed } from "./errors.js";
import { Instance } from "./instance.js";
import { install } from "./sandbox.js";

// The generated module imports this module before the plugin, so that the plugin's modules cannot use a clock either.
install();

/** The host's function. There is none while the plugin is built, so that lines of the build are dropped. */
let hostLog = null;
globalThis.console = Object.fromEntries(
  [["debug", "debug"], ["error", "error"], ["info", "info"], ["log", "info"], ["trace", "debug"], ["warn", "warn"]].map(
    ([name, level]) => [name, (...values) => hostLog?.(level, wellFormed(values.map(printed).join(" ")))],
  ),
);

const printed = (value) => (typeof value === "string" ? value : value instanceof Error ? String(value) : textOf(value));

/** Returns the functions of the component. `project` is the module plugin.js. */
export function component(project, host) {
  const plugin = project.default;
  if (!(plugin instanceof Plugin)) {
    const found = plugin === undefined ? "there is no default export" : `the default export is ${shown(plugin)}`;
    throw new DeclarationError(`plugin.js exports no plugin: ${found}. hint: write export default plugin({ ... })`);
  }
  const instance = new Instance(plugin);
  const signature = signatureOf(plugin);
  return {
    describe: () => signature,
    configure(config) {
      hostLog = host.log;
      instance.configure(config);
    },
    transform: (rows, frame) => instance.transform(rows, frame),
  };
}

function signatureOf(plugin) {
  const field = ([name, { type, doc }], nullable) => ({
    name,
    dataType: { scalar: type.scalar, isList: type.isList },
    nullable,
    nullableItems: type.nullableItems,
    doc,
  });
  const { name, version, doc, readsTime, nullableOutputs } = plugin;
  const inputs = Object.entries(plugin.inputs).map((entry) => field(entry, !entry[1].required));
  const outputs = Object.entries(plugin.outputs).map((entry) => field(entry, nullableOutputs || entry[1].nullable !== false));
  return { name, version, doc: doc.trim(), readsTime, inputs, outputs };
}
