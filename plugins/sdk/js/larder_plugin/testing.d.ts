/** Runs a plugin over rows as the host does, for the plugin's unit tests. */

import type { Plugin } from "./index.js";

/** The result of a row that failed. All of its outputs are null. */
export class Failed {
  constructor(message: string);
  /** The message that the host reports, such as `TypeError: no rate (plugin.js:12, in derive)`. */
  readonly message: string;
}

export interface RunOptions {
  /** The derived view's `config` block. */
  config?: unknown;
  /** The reference time of all rows in microseconds since 1970 UTC, or an array with one per row. */
  asOf?: bigint | number | (bigint | number)[];
}

/**
 * Returns the outputs of each row: an object by output, or a `Failed`. A row is an object by input. A missing input is
 * null. Throws an error if a row's outputs differ alone, in the batch and in the reversed batch.
 */
export function run(plugin: Plugin, rows: Record<string, unknown>[], options?: RunOptions): (Record<string, any> | Failed)[];
