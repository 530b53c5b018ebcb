"""Trains a churn model on the data of the demo, and predicts with features from the server.

1. In another terminal, run `make demo`. It generates customers and serves their features.
2. pip install the wheel (`make wheel`), pandas, pyarrow and scikit-learn.
3. Run `python python/examples/churn.py`.
"""

from __future__ import annotations

import argparse

import numpy
import pandas
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import larder

SERVICE = "churn_prediction_online"
NUMBERS = ["tenure_months", "monthly_charges", "support_tickets_30d", "data_usage_gb", "age"]
WORDS = ["contract_type", "payment_method", "senior_citizen"]


def labels(rows: pandas.DataFrame) -> numpy.ndarray:
    """Generates labels, because the demo has none: customers leave if they have many tickets and no long contract."""
    score = 0.8 * rows["support_tickets_30d"] - 0.04 * rows["tenure_months"] + (rows["contract_type"] == "Month-to-month")
    chance = 1 / (1 + numpy.exp(-score.to_numpy(dtype=float)))
    return numpy.random.default_rng(7).random(len(rows)) < chance


def train(store: larder.FeatureStore, customers: list[str], now: pandas.Timestamp) -> tuple[Pipeline, pandas.DataFrame]:
    """Returns a model and its training set, which has one row per customer with the features at the time `now`."""
    entities = pandas.DataFrame({"customer_id": customers, "event_timestamp": now})
    job = store.get_historical_features(entities, feature_service=SERVICE)
    rows = job.to_df().dropna()
    for view in job.report["views"]:
        print(f"{view['view']}: {view['matched']} of {job.report['rows']} rows found, {view['late']} late")
    churned = labels(rows)
    columns = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(handle_unknown="ignore"), WORDS))
    model = make_pipeline(columns, LogisticRegression(max_iter=1000))
    known, held_out, known_labels, held_out_labels = train_test_split(rows, churned, random_state=7)
    model.fit(known[NUMBERS + WORDS], known_labels)
    print(f"accuracy on {len(held_out)} other customers: {model.score(held_out[NUMBERS + WORDS], held_out_labels):.2f}")
    return model, rows


def predict(store: larder.FeatureStore, model: Pipeline, customers: list[str]) -> numpy.ndarray:
    """Returns the chance that each customer leaves, from the features that the server has now."""
    online = store.get_online_features(feature_service=SERVICE, entities={"customer_id": customers})
    return model.predict_proba(online.to_df()[NUMBERS + WORDS])[:, 1]


def check(store: larder.FeatureStore, rows: pandas.DataFrame) -> int:
    """Checks that the server's features equal the training rows. Returns the number of compared values."""
    names = NUMBERS + WORDS
    customers = rows["customer_id"].tolist()
    online = store.get_online_features(feature_service=SERVICE, entities={"customer_id": customers}).to_dict()
    for name in names:
        trained = rows[name].tolist()
        different = [row for row, value in enumerate(trained) if value != online[name][row]]
        if different:
            row = different[0]
            raise SystemExit(f"{customers[row]}: {name} is {online[name][row]} online, and {trained[row]} in training")
    return len(names) * len(customers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="demo/larder.yaml", help="the configuration of the demo")
    parser.add_argument("--url", help="the address of the server, if it is not the one in the configuration")
    parser.add_argument("--customers", type=int, default=2000, help="how many customers to train with")
    arguments = parser.parse_args()
    store = larder.FeatureStore(arguments.config, url=arguments.url)
    customers = [f"CUST_{number:06}" for number in range(1, arguments.customers + 1)]
    model, rows = train(store, customers, pandas.Timestamp.now("UTC"))
    first = rows["customer_id"].tolist()[:3]
    for customer, chance in zip(first, predict(store, model, first)):
        print(f"{customer} leaves with a chance of {chance:.0%}")
    print(f"{check(store, rows)} values are equal online and in training")


if __name__ == "__main__":
    main()
