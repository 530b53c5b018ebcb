/**
 * `customer_derived_features`: indicators of how likely a customer is to leave, from charges, tickets and contract.
 *
 * `plugins/examples/churn` computes the same results in Rust, bit for bit: both use only additions, multiplications,
 * divisions and comparisons of doubles, in the same order.
 */

import { Fault, plugin, types } from "./larder_plugin/index.js";

/** The base of the risk by contract. An unknown contract has a value between those of the known ones. */
const BASE = new Map([
  ["Month-to-month", 0.5],
  ["One year", 0.2],
  ["Two year", 0.1],
]);
const BASE_UNKNOWN = 0.3;

export default plugin({
  name: "customer_derived_features",
  version: "1.0.0",
  doc: "Charges and tickets per month of tenure, whether a customer is high-value, and the risk of leaving.",
  inputs: {
    tenure_months: types.Int64("Full months since the first contract began."),
    monthly_charges: types.Float64("Charges of the last full month, in dollars."),
    total_charges: types.Float64("Charges since the first contract began, in dollars."),
    support_tickets_30d: types.Int64("Support tickets opened in the last 30 days."),
    contract_type: types.String("Month-to-month, One year or Two year."),
    discount_percent: types.Float64("The discount that the caller is about to offer, in percent."),
  },
  outputs: {
    charges_per_tenure_month: types.Float64(
      "Total charges per month of tenure, in dollars; a tenure of 0 counts as one month.",
    ),
    tickets_per_month: types.Float64("Support tickets of the last 30 days per month of tenure."),
    is_high_value: types.Bool("Whether the last month's charges reach the configured threshold."),
    contract_risk: types.Float64(
      "How likely the customer is to leave, from 0 to 1: a base by contract, higher in the first two years and with " +
        "tickets, lower with a discount.",
    ),
  },

  /** Returns the monthly charges from which a customer counts as high-value, in dollars. */
  configure(config) {
    const { high_value_monthly = 80, ...others } = config ?? {};
    const [unknown] = Object.keys(others);
    if (unknown !== undefined) throw new Fault(`unknown key '${unknown}' in the config`);
    if (typeof high_value_monthly !== "number") throw new Fault("config 'high_value_monthly' must be a number");
    return { highValueMonthly: high_value_monthly };
  },

  derive(row, { config }) {
    const { tenure_months, monthly_charges, total_charges, support_tickets_30d, contract_type, discount_percent } = row;
    const months = tenure_months === null ? null : tenure_months > 1n ? Number(tenure_months) : 1;
    const tickets = support_tickets_30d === null ? null : Number(support_tickets_30d);
    return {
      charges_per_tenure_month: total_charges === null || months === null ? null : total_charges / months,
      tickets_per_month: tickets === null || months === null ? null : tickets / months,
      is_high_value: monthly_charges === null ? null : monthly_charges >= config.highValueMonthly,
      contract_risk:
        contract_type === null || months === null ? null : risk(contract_type, months, tickets ?? 0, discount_percent ?? 0),
    };
  },
});

/**
 * Returns `base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01`, clamped to 0 to 1. `base` depends on the
 * contract, and `youth` falls from 1 to 0 over the first 24 months.
 */
function risk(contract, months, tickets, discount) {
  const base = BASE.get(contract) ?? BASE_UNKNOWN;
  const youth = months < 24 ? (24 - months) / 24 : 0;
  const share = base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01;
  return share > 1 ? 1 : share > 0 ? share : 0;
}
