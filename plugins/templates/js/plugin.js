import { Fault, plugin, types } from "./larder_plugin/index.js";

export default plugin({
  name: "{{name}}",
  version: "0.1.0",
  doc: "The ratio of two numbers.",
  inputs: {
    numerator: types.Float64("The numerator."),
    denominator: types.Float64("The denominator, at least 0."),
  },
  outputs: {
    ratio: types.Float64("The ratio; null if an input is null or the denominator is 0."),
  },
  derive({ numerator, denominator }) {
    // A missing input is null; return null for a missing output.
    if (numerator === null || denominator === null || denominator === 0) return null;
    // An error fails only this row: its outputs are null, and the message is reported. Other rows are served.
    if (denominator < 0) throw new Fault(`the denominator ${denominator} is below 0`);
    return numerator / denominator;
  },
});
