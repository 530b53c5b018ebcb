/** An instance of a plugin: it is configured once and then called with frames. Unit tests use the same code. */

import { Fault, described, shown, textOf, trace } from "./errors.js";
import { read, write } from "./frame.js";
import { oneRow } from "./one_row.js";
import { byColumns, byRow } from "./rows.js";
import { TYPES } from "./types.js";
import { Mismatch } from "./values.js";

export class Instance {
  constructor(plugin) {
    this.plugin = plugin;
    this.types = Object.values(plugin.inputs).map((field) => field.type);
    this.frameTypes = plugin.readsTime ? [TYPES.UnixTimestamp, ...this.types] : this.types;
    this.outputTypes = Object.values(plugin.outputs).map((field) => field.type);
    this.compute = plugin.deriveColumns ? byColumns(plugin) : byRow(plugin);
    this.computeOne = plugin.derive ? oneRow(plugin) : null;
    this.config = null;
  }

  /** Sets the configuration: the derived view's `config` block, as JSON. Throws the message if the plugin rejects it. */
  configure(text) {
    const { plugin } = this;
    try {
      const parsed = JSON.parse(text);
      if (plugin.configure) {
        this.config = plugin.configure(parsed);
      } else if (parsed !== null && textOf(parsed) !== "{}") {
        throw new Fault(`plugin '${plugin.name}' takes no config, got ${shown(parsed)}. hint: declare configure(config)`);
      }
    } catch (error) {
      throw message(error);
    }
  }

  /** Computes a frame of outputs. Returns it with the failed rows. Throws the message if the whole batch fails. */
  transform(rows, frame) {
    if (rows === 1 && this.computeOne !== null) return this.computeOne(frame, this.config);
    try {
      const columns = read(this.frameTypes, frame, rows);
      const instants = this.plugin.readsTime ? columns.shift().values : undefined;
      const inputs = this.plugin.deriveColumns ? columns : columns.map((column, index) => column.withNulls(this.types[index]));
      const { results, failed } = this.compute(inputs, rows, instants, this.config);
      return { outputs: write(this.outputTypes, results, rows), failed };
    } catch (error) {
      throw message(error);
    }
  }
}

/** Returns the message for an error, and logs the stack of an error that the plugin did not throw on purpose. */
function message(error) {
  if (error instanceof Mismatch) return error.message;
  if (!(error instanceof Fault)) console.error(trace(error));
  return described(error);
}
