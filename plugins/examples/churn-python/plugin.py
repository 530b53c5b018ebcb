"""`customer_derived_features`: indicators of how likely a customer is to leave, from charges, tickets and contract.

`plugins/examples/churn` computes the same results in Rust, bit for bit: both use only additions, multiplications,
divisions and comparisons of doubles, in the same order.
"""

from dataclasses import dataclass

from larder_plugin import Bool, Float64, Int64, String, plugin


@dataclass
class Thresholds:
    """The derived view's `config`. A missing key has its default."""

    high_value_monthly: float = 80.0
    """The monthly charges from which a customer counts as high-value, in dollars."""


@plugin(
    name="customer_derived_features",
    version="1.0.0",
    config=Thresholds,
    inputs={
        "tenure_months": Int64("Full months since the first contract began."),
        "monthly_charges": Float64("Charges of the last full month, in dollars."),
        "total_charges": Float64("Charges since the first contract began, in dollars."),
        "support_tickets_30d": Int64("Support tickets opened in the last 30 days."),
        "contract_type": String("Month-to-month, One year or Two year."),
        "discount_percent": Float64("The discount that the caller is about to offer, in percent."),
    },
    outputs={
        "charges_per_tenure_month": Float64(
            "Total charges per month of tenure, in dollars; a tenure of 0 counts as one month."
        ),
        "tickets_per_month": Float64("Support tickets of the last 30 days per month of tenure."),
        "is_high_value": Bool("Whether the last month's charges reach the configured threshold."),
        "contract_risk": Float64(
            "How likely the customer is to leave, from 0 to 1: a base by contract, higher in the first two years and "
            "with tickets, lower with a discount."
        ),
    },
)
def derive(
    config, tenure_months, monthly_charges, total_charges, support_tickets_30d, contract_type, discount_percent
):
    """Charges and tickets per month of tenure, whether a customer is high-value, and the risk of leaving."""
    months = None if tenure_months is None else float(tenure_months) if tenure_months > 1 else 1.0
    tickets = None if support_tickets_30d is None else float(support_tickets_30d)
    return {
        "charges_per_tenure_month": None if total_charges is None or months is None else total_charges / months,
        "tickets_per_month": None if tickets is None or months is None else tickets / months,
        "is_high_value": None if monthly_charges is None else monthly_charges >= config.high_value_monthly,
        "contract_risk": None
        if contract_type is None or months is None
        else risk(
            contract_type,
            months,
            0.0 if tickets is None else tickets,
            0.0 if discount_percent is None else discount_percent,
        ),
    }


# The base of the risk by contract. An unknown contract has a value between those of the known ones.
BASE = {"Month-to-month": 0.5, "One year": 0.2, "Two year": 0.1}
BASE_UNKNOWN = 0.3


def risk(contract, months, tickets, discount):
    """Returns `base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01`, clamped to 0 to 1.

    `base` depends on the contract, and `youth` falls from 1 to 0 over the first 24 months.
    """
    base = BASE.get(contract, BASE_UNKNOWN)
    youth = (24.0 - months) / 24.0 if months < 24.0 else 0.0
    share = base + (1.0 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01
    return 1.0 if share > 1.0 else share if share > 0.0 else 0.0
