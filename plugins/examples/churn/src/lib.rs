//! `customer_derived_features`: what a customer's charges, tickets and contract say of the customer's leaving.
//!
//! `plugins/examples/churn-python` computes the same in Python, bit for bit: both use additions, multiplications,
//! divisions and comparisons of doubles only, in the same order.

use larder_plugin::{Inputs, Outputs, plugin};
use serde::Deserialize;

/// What is known of a customer, and what the caller has in mind.
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

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Outputs)]
pub struct Derived {
    /// Charges since the beginning per month of tenure, in dollars; the first month counts as one.
    pub charges_per_tenure_month: Option<f64>,
    /// Support tickets of the last 30 days per month of tenure: many in few months are a bad start.
    pub tickets_per_month: Option<f64>,
    /// Whether the last month's charges reach the configured threshold.
    pub is_high_value: Option<bool>,
    /// How likely the customer leaves, from 0 to 1: the contract's share, more in the first two years and with tickets,
    /// less with a discount.
    pub contract_risk: Option<f64>,
}

/// The derived view's `config`; what is not there keeps its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Monthly charges from which on a customer is of high value, in dollars.
    pub high_value_monthly: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { high_value_monthly: 80.0 }
    }
}

/// Charges per month of tenure, tickets per month, whether a customer is of high value, and the risk of leaving.
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

/// `base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01`, within 0 and 1, where `base` is the contract's
/// share and `youth` falls from 1 to 0 over the first 24 months.
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
        Context, Fault,
        testing::{Batch, rows, run},
    };

    use super::*;

    #[derive(Debug, PartialEq, Inputs)]
    struct Computed {
        charges_per_tenure_month: Option<f64>,
        tickets_per_month: Option<f64>,
        is_high_value: Option<bool>,
        contract_risk: Option<f64>,
    }

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

    #[test]
    fn a_customer_is_computed() {
        let expected = Derived {
            charges_per_tenure_month: Some(50.0),
            tickets_per_month: Some(0.25),
            is_high_value: Some(true),
            contract_risk: Some(0.2 + 0.8 * 0.5 * 0.5 + 3.0 * 0.05 - 10.0 * 0.01),
        };
        assert_eq!(derive(&Thresholds::default(), customer()), expected);
    }

    #[test]
    fn what_is_not_known_is_null_and_nothing_more() {
        let derived = derive(&Thresholds::default(), Customer { tenure_months: None, ..customer() });
        assert_eq!((derived.charges_per_tenure_month, derived.contract_risk), (None, None));
        assert_eq!(derived.is_high_value, Some(true));
        let nothing = Derived {
            charges_per_tenure_month: None,
            tickets_per_month: None,
            is_high_value: None,
            contract_risk: None,
        };
        assert_eq!(derive(&Thresholds::default(), Customer::default()), nothing);
    }

    #[test]
    fn the_risk_stays_within_0_and_1() {
        assert_eq!(risk("Month-to-month", 1.0, 99.0, 0.0), 1.0);
        assert_eq!(risk("Two year", 99.0, 0.0, 99.0), 0.0);
    }

    #[test]
    fn a_batch_goes_through_as_the_host_sends_it() {
        let batch = Batch::new(2)
            .column([Some(12_i64), None])
            .column([Some(80.0), Some(90.0)])
            .column([Some(600.0), None])
            .column([Some(3_i64), None])
            .column([Some("One year"), None])
            .column([None::<f64>, None]);
        let columns = run::<Plugin>(r#"{"high_value_monthly": 85}"#, &Context::default(), &batch).unwrap();
        let rows: Vec<Option<Computed>> = rows(&columns, 2);
        assert_eq!(rows[0].as_ref().unwrap().is_high_value, Some(false));
        assert_eq!(rows[1].as_ref().unwrap().is_high_value, Some(true));
        assert_eq!(rows[1].as_ref().unwrap().contract_risk, None);
    }

    #[test]
    fn a_mistyped_configuration_is_a_fault_that_names_it() {
        let fault: Fault = run::<Plugin>(r#"{"high_value": 85}"#, &Context::default(), &Batch::new(0)).unwrap_err();
        assert!(fault.message().contains("unknown field `high_value`"), "{fault}");
    }
}
