
# The churn plugin of plugins/examples as an on-demand feature view of Feast, with the same arithmetic in the same order.


@on_demand_feature_view(
    sources=[
        customer_behavior_features,
        customer_contract_features,
        RequestSource(name="offer", schema=[Field(name="discount_percent", dtype=Float64)]),
    ],
    schema=[
        Field(name="charges_per_tenure_month", dtype=Float64),
        Field(name="tickets_per_month", dtype=Float64),
        Field(name="is_high_value", dtype=Bool),
        Field(name="contract_risk", dtype=Float64),
    ],
    mode="python",
)
def customer_derived_features(inputs: dict) -> dict:
    base = {"Month-to-month": 0.5, "One year": 0.2, "Two year": 0.1}

    def risk(contract, months, tickets, discount):
        share = base.get(contract, 0.3)
        youth = (24.0 - months) / 24.0 if months < 24.0 else 0.0
        share = share + (1.0 - share) * youth * 0.5 + tickets * 0.05 - discount * 0.01
        return 1.0 if share > 1.0 else share if share > 0.0 else 0.0

    columns = {
        "charges_per_tenure_month": [],
        "tickets_per_month": [],
        "is_high_value": [],
        "contract_risk": [],
    }
    for tenure, monthly, total, tickets, contract, discount in zip(
        inputs["tenure_months"],
        inputs["monthly_charges"],
        inputs["total_charges"],
        inputs["support_tickets_30d"],
        inputs["contract_type"],
        inputs["discount_percent"],
    ):
        months = None if tenure is None else float(tenure) if tenure > 1 else 1.0
        opened = None if tickets is None else float(tickets)
        columns["charges_per_tenure_month"].append(None if total is None or months is None else total / months)
        columns["tickets_per_month"].append(None if opened is None or months is None else opened / months)
        columns["is_high_value"].append(None if monthly is None else monthly >= 80.0)
        columns["contract_risk"].append(
            None
            if contract is None or months is None
            else risk(contract, months, 0.0 if opened is None else opened, 0.0 if discount is None else discount)
        )
    return columns


