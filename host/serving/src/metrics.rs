//! Metrics of serving. Handles are bound when a snapshot or a plan is created, so a lookup does not search for metrics
//! by name.

use larder_model::model::DerivedView;
use larder_plugin_host::Outputs;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

/// The metrics of all lookups.
#[derive(Clone)]
pub(super) struct ServingMetrics {
    pub(super) entities: Histogram,
    pub(super) features: Histogram,
    pub(super) requests: Counter,
    pub(super) plans: Counter,
}

/// The counters of one view: rows by status, and conversions.
#[derive(Clone)]
pub(super) struct ViewCounters {
    pub(super) present: Counter,
    pub(super) not_found: Counter,
    pub(super) outside_max_age: Counter,
    converted: Counter,
    not_converted: Counter,
}

/// The counters of a derived view: nulls and INVALID values of each feature.
#[derive(Clone, Debug)]
pub(crate) struct DerivedCounters {
    features: Vec<FeatureCounters>,
}

#[derive(Clone, Debug)]
struct FeatureCounters {
    null: Counter,
    invalid: Counter,
}

const CONVERTED_ROWS: &str = "larder_rows_converted_total";
const DERIVED_NULLS: &str = "larder_derived_null_values_total";
const DERIVED_INVALID: &str = "larder_derived_invalid_values_total";
const NOT_CONVERTED: &str = "larder_values_not_converted_total";

// === impl ServingMetrics ===

impl ServingMetrics {
    pub(super) fn bind() -> Self {
        describe_counter!("larder_online_requests_total", "Lookups that were answered.");
        describe_histogram!("larder_request_entities", "Entity rows per lookup.");
        describe_histogram!("larder_request_features", "Features per lookup.");
        describe_counter!(
            "larder_plans_total",
            "Lookups whose names had to be resolved, because no lookup with the same names was cached."
        );
        describe_counter!("larder_rows_served_total", "Rows that were looked up, by view and status.");
        describe_counter!(
            CONVERTED_ROWS,
            "Rows stored before a feature's type changed and served with converted values, by view."
        );
        describe_counter!(
            NOT_CONVERTED,
            "Values served as NOT_FOUND because their conversion to the feature's new type would lose information, by view."
        );
        describe_counter!(DERIVED_NULLS, "Nulls that plugins computed, by derived view and feature.");
        describe_counter!(
            DERIVED_INVALID,
            "Values served as INVALID because a plugin failed or is not loaded, by derived view and feature."
        );
        Self {
            entities: histogram!("larder_request_entities"),
            features: histogram!("larder_request_features"),
            requests: counter!("larder_online_requests_total"),
            plans: counter!("larder_plans_total"),
        }
    }
}

// === impl ViewCounters ===

impl ViewCounters {
    pub(super) fn bind(view: &str) -> Self {
        let own =
            |status: &'static str| counter!("larder_rows_served_total", "view" => view.to_owned(), "status" => status);
        let of = |name: &'static str| counter!(name, "view" => view.to_owned());
        Self {
            present: own("present"),
            not_found: own("not_found"),
            outside_max_age: own("outside_max_age"),
            converted: of(CONVERTED_ROWS),
            not_converted: of(NOT_CONVERTED),
        }
    }

    /// Counts a converted row, and its values that could not be converted.
    pub(super) fn note_converted(&self, lost: usize) {
        self.converted.increment(1);
        if lost > 0 {
            self.not_converted.increment(lost as u64);
        }
    }
}

impl std::fmt::Debug for ServingMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingMetrics").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ViewCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewCounters").finish_non_exhaustive()
    }
}

// === impl DerivedCounters ===

impl DerivedCounters {
    pub(crate) fn bind(view: &DerivedView) -> Self {
        let of = |name: &'static str, feature: &str| counter!(name, "view" => view.name.to_string(), "feature" => feature.to_owned());
        let feature = |feature: &larder_model::model::Feature| FeatureCounters {
            null: of(DERIVED_NULLS, &feature.name),
            invalid: of(DERIVED_INVALID, &feature.name),
        };
        Self { features: view.features.iter().map(feature).collect() }
    }

    /// Counts the nulls and the failed rows of a batch. `columns` has the index of each feature's column.
    pub(crate) fn note(&self, outputs: &Outputs, columns: &[usize]) {
        let failed = outputs.failed().len();
        for (counters, column) in self.features.iter().zip(columns) {
            let nulls = outputs.output(*column).column().null_count() - failed;
            if nulls > 0 {
                counters.null.increment(nulls as u64);
            }
            if failed > 0 {
                counters.invalid.increment(failed as u64);
            }
        }
    }

    /// Counts rows that are INVALID because the plugin is not loaded.
    pub(crate) fn note_all_invalid(&self, rows: usize) {
        self.features.iter().for_each(|counters| counters.invalid.increment(rows as u64));
    }
}
