/** Tests of the plugin. Run them with: node --test */

import assert from "node:assert/strict";
import { test } from "node:test";

import { run } from "./larder_plugin/testing.js";
import plugin from "./plugin.js";

const CUSTOMER = {
  tenure_months: 12n,
  monthly_charges: 70,
  total_charges: 840,
  support_tickets_30d: 3n,
  contract_type: "One year",
  discount_percent: 5,
};

test("customer is computed", () => {
  const [result] = run(plugin, [CUSTOMER]);
  assert.deepEqual([result.charges_per_tenure_month, result.tickets_per_month, result.is_high_value], [70, 0.25, false]);
  assert.ok(Math.abs(result.contract_risk - 0.5) < 1e-12);
  assert.equal(run(plugin, [CUSTOMER], { config: { high_value_monthly: 70 } })[0].is_high_value, true);
});

test("missing inputs give missing outputs", () => {
  const nothing = { charges_per_tenure_month: null, tickets_per_month: null, is_high_value: null, contract_risk: null };
  assert.deepEqual(run(plugin, [{}]), [nothing]);
  assert.notEqual(run(plugin, [{ tenure_months: 0, contract_type: "x" }])[0].contract_risk, null);
});

test("invalid config is rejected", () => {
  for (const config of [{ high_value: 5 }, { high_value_monthly: "5" }]) {
    assert.throws(() => run(plugin, [], { config }), (message) => /config/.test(message));
  }
});
