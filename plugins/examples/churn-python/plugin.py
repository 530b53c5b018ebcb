"""`customer_derived_features`: what a customer's charges, tickets and contract say of the customer's leaving.

`plugins/examples/churn` computes the same in Rust, bit for bit: both use additions, multiplications, divisions and
comparisons of doubles only, in the same order.
"""

from dataclasses import dataclass

from larder_plugin import Bool, Float64, Int64, String, plugin


@dataclass
class Thresholds:
    """The derived view's `config`; what is not there keeps its default."""

    high_value_monthly: float = 80.0
    """Monthly charges from which on a customer is of high value, in dollars."""


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
            "Charges since the beginning per month of tenure, in dollars; the first month counts as one."
        ),
        "tickets_per_month": Float64(
            "Support tickets of the last 30 days per month of tenure: many in few months are a bad start."
        ),
        "is_high_value": Bool("Whether the last month's charges reach the configured threshold."),
        "contract_risk": Float64(
            "How likely the customer leaves, from 0 to 1: the contract's share, more in the first two years and with "
            "tickets, less with a discount."
        ),
    },
)
def derive(
    config, tenure_months, monthly_charges, total_charges, support_tickets_30d, contract_type, discount_percent
):
    """Charges per month of tenure, tickets per month, whether a customer is of high value, and the risk of leaving."""
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


# The contract's share of the risk; contracts that nobody knows are between those that are known.
BASE = {"Month-to-month": 0.5, "One year": 0.2, "Two year": 0.1}
BASE_UNKNOWN = 0.3


def risk(contract, months, tickets, discount):
    """`base + (1 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01`, within 0 and 1.

    `base` is the contract's share, and `youth` falls from 1 to 0 over the first 24 months.
    """
    base = BASE.get(contract, BASE_UNKNOWN)
    youth = (24.0 - months) / 24.0 if months < 24.0 else 0.0
    share = base + (1.0 - base) * youth * 0.5 + tickets * 0.05 - discount * 0.01
    return 1.0 if share > 1.0 else share if share > 0.0 else 0.0
