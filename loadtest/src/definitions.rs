//! The definitions of a benchmark, for Larder and for Feast: the churn views of the demo, and wide views.

use std::fmt::Write;

/// The number of features of a wide view.
pub(crate) const WIDE_FEATURES: usize = 50;
/// The number of wide views.
const WIDE_VIEWS: usize = 4;
/// The numbers of features in the sweep. For each number N, the service `wide_first_N` has the first N wide features.
pub(crate) const SWEEP: [usize; 5] = [1, 10, 50, 100, 200];

pub(crate) const CHURN: &str = "churn_prediction_online";
pub(crate) const CHURN_DERIVED: &str = "churn_prediction_derived";
pub(crate) const SVC50: &str = "wide_first_50";
pub(crate) const SVC200: &str = "wide_first_200";

/// The churn plugin as an on-demand feature view of Feast.
const ON_DEMAND: &str = include_str!("bench/on_demand.py");

/// The type of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Float,
    Text,
    Bool,
}

/// A feature of a view.
#[derive(Clone, Debug)]
pub(crate) struct Feature {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A feature view, and its file in the data directory.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) features: Vec<Feature>,
}

/// A feature service: the selected features of each view.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) parts: Vec<(String, Vec<String>)>,
}

// === impl Kind ===

impl Kind {
    /// Returns the type's name, which is the same in Larder and in Feast.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Int => "Int64",
            Self::Float => "Float64",
            Self::Text => "String",
            Self::Bool => "Bool",
        }
    }
}

/// Returns the views of `larder demo`.
pub(crate) fn churn_views() -> Vec<View> {
    use Kind::{Bool, Float, Int, Text};
    let view = |name: &str, file: &str, features: &[(&str, Kind)]| View {
        name: name.to_owned(),
        file: file.to_owned(),
        features: features.iter().map(|&(name, kind)| Feature { name: name.to_owned(), kind }).collect(),
    };
    vec![
        view(
            "customer_behavior_features",
            "customer_features.parquet",
            &[
                ("tenure_months", Int),
                ("monthly_charges", Float),
                ("total_charges", Float),
                ("support_tickets_30d", Int),
                ("data_usage_gb", Float),
            ],
        ),
        view(
            "customer_demographics_features",
            "customer_demographics.parquet",
            &[("age", Int), ("gender", Text), ("location", Text), ("senior_citizen", Bool)],
        ),
        view(
            "customer_contract_features",
            "customer_contract.parquet",
            &[("contract_type", Text), ("payment_method", Text), ("paperless_billing", Bool)],
        ),
    ]
}

/// Returns views of 50 features each, `f_000` to `f_199`: alternating floats, integers and strings.
pub(crate) fn wide_views() -> Vec<View> {
    let kinds = [Kind::Float, Kind::Int, Kind::Text];
    (0..WIDE_VIEWS)
        .map(|view| View {
            name: format!("wide_{}", view + 1),
            file: format!("wide_{}.parquet", view + 1),
            features: (view * WIDE_FEATURES..(view + 1) * WIDE_FEATURES)
                .map(|place| Feature { name: format!("f_{place:03}"), kind: kinds[place % kinds.len()] })
                .collect(),
        })
        .collect()
}

/// Returns the service of the demo. The benchmark also defines it for Redis and Feast.
pub(crate) fn churn_service() -> Service {
    let part =
        |view: &str, features: &[&str]| (view.to_owned(), features.iter().map(|&name| name.to_owned()).collect());
    Service {
        name: CHURN.to_owned(),
        parts: vec![
            part(
                "customer_behavior_features",
                &["tenure_months", "monthly_charges", "support_tickets_30d", "data_usage_gb"],
            ),
            part("customer_demographics_features", &["age", "senior_citizen"]),
            part("customer_contract_features", &["contract_type", "payment_method"]),
        ],
    }
}

pub(crate) fn wide_services() -> Vec<Service> {
    SWEEP.map(wide_service).into()
}

fn wide_service(count: usize) -> Service {
    let parts = wide_views().into_iter().enumerate().filter_map(|(place, view)| {
        let wanted = count.saturating_sub(place * WIDE_FEATURES).min(WIDE_FEATURES);
        let names: Vec<_> = view.features.into_iter().take(wanted).map(|feature| feature.name).collect();
        (!names.is_empty()).then_some((view.name, names))
    });
    Service { name: format!("wide_first_{count}"), parts: parts.collect() }
}

pub(crate) fn wide_service_name(count: usize) -> String {
    wide_service(count).name
}

/// Returns the definitions of views and services for Larder, without the entity `customer_id`.
pub(crate) fn larder_yaml(views: &[View], services: &[Service]) -> String {
    let mut yaml = String::from("feature_views:\n");
    for View { name, file, features } in views {
        let _ = writeln!(yaml, "  - name: {name}\n    entities: [customer_id]");
        let _ = writeln!(yaml, "    source: {{path: data/{file}, timestamp_field: event_timestamp}}\n    features:");
        for Feature { name, kind } in features {
            let _ = writeln!(yaml, "      - {{name: {name}, type: {}}}", kind.name());
        }
    }
    if !services.is_empty() {
        yaml.push_str("feature_services:\n");
    }
    for Service { name, parts } in services {
        let _ = writeln!(yaml, "  - name: {name}\n    features:");
        for (view, features) in parts {
            let _ = writeln!(yaml, "      - {{view: {view}, features: [{}]}}", features.join(", "));
        }
    }
    yaml
}

/// Returns all definitions of a Feast repository, with the churn plugin in Python.
pub(crate) fn feast_python(views: &[View], services: &[Service]) -> String {
    let mut python = String::from(
        "from datetime import timedelta\n\n\
         from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType\n\
         from feast.on_demand_feature_view import on_demand_feature_view\n\
         from feast.types import Bool, Float64, Int64, String\n\n\
         customer_id = Entity(name=\"customer_id\", join_keys=[\"customer_id\"], value_type=ValueType.STRING)\n",
    );
    for View { name, file, features } in views {
        let fields: Vec<_> = features
            .iter()
            .map(|Feature { name, kind }| format!("Field(name=\"{name}\", dtype={})", kind.name()))
            .collect();
        let _ = writeln!(
            python,
            "{name} = FeatureView(name=\"{name}\", entities=[customer_id], ttl=timedelta(days=3650), \
             source=FileSource(name=\"{name}_source\", path=\"data/{file}\", timestamp_field=\"event_timestamp\"), \
             schema=[Field(name=\"customer_id\", dtype=String), {}])",
            fields.join(", ")
        );
    }
    python.push_str(ON_DEMAND);
    let mut write = |name: &str, parts: &[(String, Vec<String>)], more: &str| {
        let parts: Vec<_> =
            parts.iter().map(|(view, features)| format!("{view}[[\"{}\"]]", features.join("\", \""))).collect();
        let _ = writeln!(python, "{name} = FeatureService(name=\"{name}\", features=[{}{more}])", parts.join(", "));
    };
    for Service { name, parts } in services {
        write(name, parts, "");
        if name == CHURN {
            write(CHURN_DERIVED, parts, ", customer_derived_features");
        }
    }
    python
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_match_feature_counts() {
        for service in wide_services() {
            let count: usize = service.parts.iter().map(|(_, features)| features.len()).sum();
            assert_eq!(service.name, format!("wide_first_{count}"));
        }
        assert_eq!(wide_service(SWEEP[4]).parts.len(), WIDE_VIEWS);
        assert_eq!(wide_service(10).parts, [("wide_1".to_owned(), (0..10).map(|n| format!("f_{n:03}")).collect())]);
    }

    #[test]
    fn services_use_existing_features() {
        let views = [churn_views(), wide_views()].concat();
        for service in [vec![churn_service()], wide_services()].concat() {
            for (view, names) in service.parts {
                let view = views.iter().find(|candidate| candidate.name == view).unwrap();
                assert!(names.iter().all(|name| view.features.iter().any(|feature| feature.name == *name)));
            }
        }
    }

    #[test]
    fn definitions_have_yaml_and_python_forms() {
        let view = View {
            name: "v".to_owned(),
            file: "v.parquet".to_owned(),
            features: vec![Feature { name: "x".to_owned(), kind: Kind::Float }],
        };
        let service = Service { name: "s".to_owned(), parts: vec![("v".to_owned(), vec!["x".to_owned()])] };
        assert_eq!(
            larder_yaml(std::slice::from_ref(&view), std::slice::from_ref(&service)),
            "feature_views:\n  - name: v\n    entities: [customer_id]\n    source: {path: data/v.parquet, \
             timestamp_field: event_timestamp}\n    features:\n      - {name: x, type: Float64}\nfeature_services:\n  \
             - name: s\n    features:\n      - {view: v, features: [x]}\n"
        );
        let python = feast_python(&[view], &[service, churn_service()]);
        assert!(python.contains("s = FeatureService(name=\"s\", features=[v[[\"x\"]]])\n"), "{python}");
        assert!(python.contains("[[\"contract_type\", \"payment_method\"]], customer_derived_features])"), "{python}");
    }
}
