/** Derived features for Larder, written as plain functions. */

/** The type of an input or an output. Calling it with a one-line description declares one of the type. */
export interface Type {
  (doc: string, options?: FieldOptions): Field;
  readonly typeName: string;
}

export interface FieldOptions {
  /** For an input: rows in which it is null are not computed, and all of their outputs are null. */
  required?: boolean;
  /** For an output: `false` if it is never null in a row that is computed. */
  nullable?: boolean;
}

export interface Field {
  readonly type: Type;
  readonly doc: string;
}

export namespace types {
  /** `boolean`; in columns, 0 or 1 in a `Uint8Array`. */
  const Bool: Type;
  /** `number`: an integer of 32 bits. */
  const Int32: Type;
  /** `bigint` of 64 bits. Safe integers of type `number` are accepted as outputs. */
  const Int64: Type;
  /** `number`. Outputs are rounded to 32 bits. */
  const Float32: Type;
  /** `number`. NaN is a value; a missing value is `null`. */
  const Float64: Type;
  /** `string`. */
  const String: Type;
  /** `Uint8Array`. */
  const Bytes: Type;
  /** `bigint`: microseconds since 1970 UTC. */
  const UnixTimestamp: Type;
  /**
   * Lists of `item`. Lists of numbers and times are typed arrays; all others, and lists with `nullableItems`, are arrays.
   * With `nullableItems`, items may be `null`.
   */
  function Array(item: Type, options?: { nullableItems?: boolean }): Type;
}

/** An input of `deriveColumns`, or one of its outputs. The value of a null is 0, an empty text or an empty list. */
export interface Column {
  /** One value per row. Numbers, bools and times are typed arrays, which are not copied. */
  readonly values: ArrayLike<any>;
  /** 1 for each row that has a value, and 0 for each null. */
  readonly present: Uint8Array;
  /** Whether a row is null. Not needed in outputs. */
  readonly hasNulls?: boolean;
}

export interface Context<Config = any> {
  /** The result of `configure`, or `null` if the plugin has no `configure`. */
  readonly config: Config;
}

/** The context of a row. `asOf` and `time` need `readsTime: true`. */
export interface RowContext<Config = any> extends Context<Config> {
  /** The reference time: the time of the request, or the event time of a training row. In microseconds since 1970 UTC. */
  readonly asOf: bigint;
  /** The reference time in milliseconds, rounded down. */
  readonly time: Date;
}

export interface ColumnsContext<Config = any> extends Context<Config> {
  /** The number of rows. */
  readonly rows: number;
  /** The reference time of each row, in microseconds since 1970 UTC. Needs `readsTime: true`. */
  readonly asOf: BigInt64Array;
}

export interface PluginOptions<Config = any> {
  /** The name by which derived views refer to the plugin: a letter or `_`, followed by letters, digits and `_`. */
  name: string;
  /** The semantic version, such as `1.0.0`. */
  version: string;
  /** A description for users. */
  doc?: string;
  inputs: Record<string, Field>;
  outputs: Record<string, Field>;
  /** Whether the plugin uses the reference time. */
  readsTime?: boolean;
  /**
   * Receives the `config` of the derived view, or `null` if the view has none, and returns `context.config`. An error
   * rejects the config. Without this function, a view with a config is rejected.
   */
  configure?(config: any): Config;
  /**
   * Computes a row. A missing value is `null`. Returns an object by output, or the value if there is only one output. An
   * error fails only this row. The object `row` is used for all rows of a batch: do not store it.
   */
  derive?(row: any, context: RowContext<Config>): any;
  /**
   * Computes a batch in less time than `derive`. Returns a typed array, an array with `null` for each null, or a `Column` for
   * each output. An error fails the batch, and the host tries parts of it. If `derive` is declared, too, it computes the
   * batches of one row, which take less time in `derive`; both must compute the same outputs.
   */
  deriveColumns?(columns: Record<string, Column>, context: ColumnsContext<Config>): Record<string, Column | ArrayLike<any>>;
}

/** A declared plugin, with its options as properties. */
export type Plugin = Readonly<PluginOptions>;

/** Declares a plugin. It must be the default export of plugin.js. Throws a `DeclarationError` that lists all mistakes. */
export function plugin<Config>(options: PluginOptions<Config>): Plugin;

/** An error whose message is passed on unchanged. For other errors, the message also has the name and the line. */
export class Fault extends Error {}

/** A plugin is declared incorrectly. */
export class DeclarationError extends TypeError {}

/** The version of the kit. */
export const VERSION: string;
