"""Tests of the plugin, with the same cases as the tests of the Rust version."""

import unittest

from larder_plugin import Fault
from larder_plugin.testing import run
from plugin import Thresholds, derive, risk

CUSTOMER = {
    "tenure_months": 12,
    "monthly_charges": 80.0,
    "total_charges": 600.0,
    "support_tickets_30d": 3,
    "contract_type": "One year",
    "discount_percent": 10.0,
}
NOTHING = dict.fromkeys(derive.outputs)


class Derive(unittest.TestCase):
    def test_features_are_computed(self):
        expected = {
            "charges_per_tenure_month": 50.0,
            "tickets_per_month": 0.25,
            "is_high_value": True,
            "contract_risk": 0.2 + 0.8 * 0.5 * 0.5 + 3.0 * 0.05 - 10.0 * 0.01,
        }
        self.assertEqual(derive(Thresholds(), **CUSTOMER), expected)

    def test_null_input_affects_only_dependent_outputs(self):
        [derived] = run(derive, [{**CUSTOMER, "tenure_months": None}])
        self.assertEqual(derived, {**NOTHING, "is_high_value": True})
        self.assertEqual(run(derive, [{}]), [NOTHING])

    def test_risk_is_clamped_to_0_and_1(self):
        self.assertEqual(risk("Month-to-month", 1.0, 99.0, 0.0), 1.0)
        self.assertEqual(risk("Two year", 99.0, 0.0, 99.0), 0.0)

    def test_configuration_sets_the_threshold(self):
        rows = [CUSTOMER, {"monthly_charges": 90.0}]
        derived = run(derive, rows, config={"high_value_monthly": 85})
        self.assertEqual([row["is_high_value"] for row in derived], [False, True])

    def test_unknown_configuration_key_is_a_fault(self):
        with self.assertRaisesRegex(Fault, "unknown key 'high_value'.*did you mean 'high_value_monthly'"):
            run(derive, [], config={"high_value": 85})


if __name__ == "__main__":
    unittest.main()
