/** Tests of the plugin. Run them with: node --test */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Fault } from "./larder_plugin/index.js";
import { Failed, run } from "./larder_plugin/testing.js";
import plugin from "./plugin.js";

test("ratio is computed", () => {
  assert.equal(plugin.derive({ numerator: 3, denominator: 2 }), 1.5);
  assert.equal(plugin.derive({ numerator: 3, denominator: 0 }), null);
  assert.equal(plugin.derive({ numerator: null, denominator: 2 }), null);
  assert.equal(plugin.derive({ numerator: 3, denominator: null }), null);
});

test("denominator below 0 is a fault", () => {
  assert.throws(() => plugin.derive({ numerator: 3, denominator: -2 }), Fault);
});

test("batch is computed", () => {
  // `run` works as the host does. It also compares the batch with each row alone.
  const rows = JSON.parse(readFileSync(new URL("rows.json", import.meta.url), "utf8"));
  const failed = new Failed("the denominator -2 is below 0");
  assert.deepEqual(run(plugin, rows), [{ ratio: 1.5 }, { ratio: null }, { ratio: null }, failed]);
});
