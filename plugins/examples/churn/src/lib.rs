//! `customer_derived_features`: indicators of how likely a customer is to leave, from charges, tickets and contract.
//!
//! `plugins/examples/churn-python` computes the same results in Python, bit for bit: both use only additions,
//! multiplications, divisions and comparisons of doubles, in the same order.

use larder_plugin::{Inputs, Outputs, plugin};
use serde::Deserialize;

/// The stored features of a customer, and the caller's discount.
#[derive(Clone, Debug, Default, Inputs)]
pub struct Customer<'a> {
    /// Full months since the first contract began.
    pub tenure_months: Option<i64>,
    /// Charges of the last full month, in dollars.
    pub monthly_charges: Option<f64>,
    /// Charges since the first contract began, in dollars.
    pub total_charges: Option<f64>,
    /// Support tickets opened in the last 30 days.
    pub support_tickets_30d: Option<i64>,
    /// Month-to-month, One year or Two year.
    pub contract_type: Option<&'a str>,
    /// The discount that the caller is about to offer, in percent.
    pub discount_percent: Option<f64>,
}

/// The computed features.
#[derive(Clone, Debug, PartialEq, Outputs)]
pub struct Derived {
    /// Total charges per month of tenure, in dollars; a tenure of 0 counts as one month.
    pub charges_per_tenure_month: Option<f64>,
    /// Support tickets of the last 30 days per month of tenure.
    pub tickets_per_month: Option<f64>,
    /// Whether the last month's charges reach the configured threshold.
    pub is_high_value: Option<bool>,
    /// How likely the customer is to leave, from 0 to 1: a base by contract, higher in the first two years and with
    /// tickets, lower with a discount.
    pub contract_risk: Option<f64>,
}

/// The derived view's `config`. A missing key has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// The monthly charges from which a customer counts as high-value, in dollars.
    pub high_value_monthly: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { high_value_monthly: 80.0 }
    }
}

/// Charges and tickets per month of tenure, whether a customer is high-value, and the risk of leaving.
#[plugin(name = "customer_derived_features", version = "1.0.0")]
pub fn derive(config: &Thresholds, customer: Customer<'_>) -> Derived {
    let months = customer.tenure_months.map(|months| if months > 1 { months as f64 } else { 1.0 });
    let tickets = customer.support_tickets_30d.map(|tickets| tickets as f64);
    Derived {
        charges_per_tenure_month: customer.total_charges.zip(months).map(|(total, months)| total / months),
        tickets_per_month: tickets.zip(months).map(|(tickets, months)| tickets / months),
        is_high_value: customer.monthly_charges.map(|charges| charges >= config.high_value_monthly),
        contract_risk: customer.contract_type.zip(months).map(|(contract, months)| {
            risk(contract, months, tickets.unwrap_or(0.0), customer.discount_percent.unwrap_or(0.0))
        }),
    }
}

/// Returns `base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01`, clamped to 0 to 1. `base` depends on the
/// contract, and `youth` falls from 1 to 0 over the first 24 months.
fn risk(contract: &str, months: f64, tickets: f64, discount: f64) -> f64 {
    let base = match contract {
        "Month-to-month" => 0.5,
        "One year" => 0.2,
        "Two year" => 0.1,
        _ => 0.3,
    };
    let youth = if months < 24.0 { (24.0 - months) / 24.0 } else { 0.0 };
    let risk = base + (1.0 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01;
    if risk > 1.0 {
        1.0
    } else if risk > 0.0 {
        risk
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use larder_plugin::{
        rows,
        testing::{Host, Row, Value, run},
    };

    use super::*;

    const OUTPUTS: [&str; 4] = ["charges_per_tenure_month", "tickets_per_month", "is_high_value", "contract_risk"];

    fn customer() -> Customer<'static> {
        Customer {
            tenure_months: Some(12),
            monthly_charges: Some(80.0),
            total_charges: Some(600.0),
            support_tickets_30d: Some(3),
            contract_type: Some("One year"),
            discount_percent: Some(10.0),
        }
    }

    fn customers() -> Vec<Row> {
        rows![
            {
                tenure_months: 12, monthly_charges: 80.0, total_charges: 600.0, support_tickets_30d: 3,
                contract_type: "One year", discount_percent: 10.0,
            },
            { monthly_charges: 90.0 },
            {},
        ]
    }

    #[test]
    fn features_are_computed() {
        let expected = Derived {
            charges_per_tenure_month: Some(50.0),
            tickets_per_month: Some(0.25),
            is_high_value: Some(true),
            contract_risk: Some(0.2 + 0.8 * 0.5 * 0.5 + 3.0 * 0.05 - 10.0 * 0.01),
        };
        assert_eq!(derive(&Thresholds::default(), customer()), expected);
    }

    #[test]
    fn null_input_affects_only_dependent_outputs() {
        let derived = derive(&Thresholds::default(), Customer { tenure_months: None, ..customer() });
        assert_eq!((derived.charges_per_tenure_month, derived.contract_risk), (None, None));
        assert_eq!(derived.is_high_value, Some(true));
        let without_tickets = derive(&Thresholds::default(), Customer { support_tickets_30d: None, ..customer() });
        assert_eq!(without_tickets.contract_risk, Some(0.2 + 0.8 * 0.5 * 0.5 - 10.0 * 0.01));
    }

    #[test]
    fn tenure_of_zero_counts_as_one_month() {
        let derived = derive(&Thresholds::default(), Customer { tenure_months: Some(0), ..customer() });
        assert_eq!((derived.charges_per_tenure_month, derived.tickets_per_month), (Some(600.0), Some(3.0)));
    }

    #[test]
    fn risk_is_clamped_to_0_and_1() {
        assert_eq!(risk("Month-to-month", 1.0, 99.0, 0.0), 1.0);
        assert_eq!(risk("Two year", 99.0, 0.0, 99.0), 0.0);
        assert_eq!(risk("Two year", 99.0, 0.0, f64::NAN), 0.0);
    }

    #[test]
    fn batch_is_computed_row_by_row() {
        let table = run::<super::derive>(customers());
        let row = |row: usize| OUTPUTS.map(|output| table[output][row].clone());
        let risk = 0.2 + 0.8 * 0.5 * 0.5 + 3.0 * 0.05 - 10.0 * 0.01;
        assert_eq!(row(0), [Value::from(50.0), Value::from(0.25), Value::from(true), Value::from(risk)]);
        assert_eq!(row(1), [Value::Null, Value::Null, Value::from(true), Value::Null]);
        assert_eq!(row(2), [Value::Null, Value::Null, Value::Null, Value::Null]);
    }

    #[test]
    fn configuration_sets_the_threshold() {
        let host = Host::<super::derive>::new().config(r#"{"high_value_monthly": 85}"#);
        let table = host.run(customers()).unwrap();
        assert_eq!((&table["is_high_value"][0], &table["is_high_value"][1]), (&false.into(), &true.into()));
    }

    #[test]
    fn unknown_configuration_key_is_a_fault() {
        let fault = Host::<super::derive>::new().config(r#"{"high_value": 85}"#).run(Vec::new()).unwrap_err();
        assert!(fault.message().contains("unknown field `high_value`"), "{fault}");
    }
}
