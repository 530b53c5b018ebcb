//! The report of `larder verify --parity`.

use std::collections::BTreeSet;

use anyhow::Result;
use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Float32Type, Float64Type},
    util::display::array_value_to_string,
};
use larder_model::model::{Micros, Rfc3339};

use super::{super::super::output, Class};

/// The counts of all features.
#[derive(Debug, Default)]
pub(super) struct Report {
    features: Vec<Feature>,
    examples: Vec<Difference>,
    /// The number of rows that were logged with other definitions.
    other_definitions: u64,
    /// Services, each with a feature that some rows of the log lack.
    not_logged: BTreeSet<(String, String)>,
    /// Services, each with a logged feature that the service lacks.
    not_defined: BTreeSet<(String, String)>,
}

/// The counts of a feature.
#[derive(Debug, Default)]
struct Feature {
    name: String,
    rows: u64,
    /// The number of values of each class, in the order of [`CLASSES`].
    classes: [u64; CLASSES.len()],
}

/// A difference for which no reason is known.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) feature: String,
    /// The names and the values of the keys.
    pub(super) keys: Vec<(String, ArrayRef)>,
    pub(super) request_id: String,
    pub(super) time: Micros,
    pub(super) logged: ArrayRef,
    pub(super) computed: ArrayRef,
}

const CLASSES: [(Class, &str); 8] = [
    (Class::Late, "LATE"),
    (Class::Pushed, "PUSHED"),
    (Class::Overwritten, "OVERWRITTEN"),
    (Class::Replaced, "REPLACED"),
    (Class::TtlMode, "TTL MODE"),
    (Class::OtherComponent, "COMPONENT"),
    (Class::Future, "FUTURE"),
    (Class::Unexplained, "UNEXPLAINED"),
];

/// The maximum number of examples.
const EXAMPLES_MAX: usize = 10;

// === impl Report ===

impl Report {
    /// Counts rows of a feature.
    pub(super) fn add_rows(&mut self, feature: &str, rows: usize) {
        self.feature(feature).rows += rows as u64;
    }

    /// Counts a value that differs.
    pub(super) fn add(&mut self, feature: &str, class: Class) {
        let index = CLASSES.iter().position(|(known, _)| *known == class).unwrap_or_default();
        self.feature(feature).classes[index] += 1;
    }

    /// Adds an example, unless there are enough.
    pub(super) fn add_example(&mut self, example: impl FnOnce() -> Result<Difference>) -> Result<()> {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example()?);
        }
        Ok(())
    }

    /// Counts rows that were logged with other definitions.
    pub(super) fn add_other_definitions(&mut self, rows: usize) {
        self.other_definitions += rows as u64;
    }

    /// Adds features of a service that some rows of the log lack, and features of the log that the service lacks.
    pub(super) fn add_unverified(&mut self, service: &str, not_logged: Vec<String>, not_defined: Vec<String>) {
        let named = |feature| (service.to_owned(), feature);
        self.not_logged.extend(not_logged.into_iter().map(named));
        self.not_defined.extend(not_defined.into_iter().map(named));
    }

    /// Returns the number of differences for which no reason is known.
    pub(super) fn unexplained(&self) -> u64 {
        self.count(Class::Unexplained)
    }

    fn count(&self, class: Class) -> u64 {
        let index = CLASSES.iter().position(|(known, _)| *known == class).unwrap_or_default();
        self.features.iter().map(|feature| feature.classes[index]).sum()
    }

    pub(super) fn print(&self) {
        let mut headings = vec!["FEATURE", "ROWS", "EQUAL"];
        headings.extend(CLASSES.map(|(_, heading)| heading));
        let row = |feature: &Feature| {
            let equal = feature.rows - feature.classes.iter().sum::<u64>();
            let counts = [feature.rows, equal].into_iter().chain(feature.classes).map(output::thousands);
            std::iter::once(feature.name.clone()).chain(counts).collect()
        };
        let rows: Vec<Vec<String>> = self.features.iter().map(row).collect();
        output::table(&headings, &rows);
        if self.other_definitions > 0 {
            let rows = output::counted(self.other_definitions, "row was", "rows were");
            output::note(&format!("{rows} logged with other definitions. hint: use the definitions of that time"));
        }
        for (service, feature) in &self.not_logged {
            output::note(&format!(
                "feature service '{service}': some rows of the log have no feature '{feature}', which is not verified for them"
            ));
        }
        for (service, feature) in &self.not_defined {
            output::note(&format!(
                "feature service '{service}': the log has feature '{feature}', which the service does not have, so it is not verified"
            ));
        }
        if self.count(Class::Replaced) > 0 {
            let values = output::counted(self.count(Class::Replaced), "value is", "values are");
            output::note(&format!(
                "{values} REPLACED: their files were written after the requests, so the earlier values are unknown. hint: verify a \
                 log before its files are replaced"
            ));
        }
        for example in &self.examples {
            output::note(&format!("unexplained: {}", example.describe()));
        }
        let values: u64 = self.features.iter().map(|feature| feature.rows).sum();
        let differing: u64 = self.features.iter().flat_map(|feature| feature.classes).sum();
        let replaced = self.count(Class::Replaced);
        let explained = differing - replaced - self.unexplained();
        let values = output::counted(values, "value", "values");
        output::line(&format!(
            "compared {values}: {} equal, {} explained, {} replaced, {} unexplained",
            output::thousands(self.features.iter().map(|feature| feature.rows).sum::<u64>() - differing),
            output::thousands(explained),
            output::thousands(replaced),
            output::thousands(self.unexplained())
        ));
    }

    fn feature(&mut self, name: &str) -> &mut Feature {
        let index = self.features.iter().position(|feature| feature.name == name).unwrap_or_else(|| {
            self.features.push(Feature { name: name.to_owned(), ..Feature::default() });
            self.features.len() - 1
        });
        &mut self.features[index]
    }
}

// === impl Difference ===

impl Difference {
    fn describe(&self) -> String {
        let mut seen = BTreeSet::new();
        let keys = self.keys.iter().filter(|(name, _)| seen.insert(name));
        let keys: Vec<String> = keys.map(|(name, value)| format!("{name}={}", text(value))).collect();
        format!(
            "{} of {} at {} (request {}): logged {}, computed {}",
            self.feature,
            keys.join(", "),
            Rfc3339::of(self.time).as_str(),
            self.request_id,
            text(&self.logged),
            text(&self.computed)
        )
    }
}

/// Formats the only value of an array. A floating-point number comes with its bits.
fn text(value: &ArrayRef) -> String {
    if value.is_null(0) {
        return "null".to_owned();
    }
    let text = array_value_to_string(value, 0).unwrap_or_else(|error| error.to_string());
    match value.data_type() {
        DataType::Float64 => format!("{text} ({:#018x})", value.as_primitive::<Float64Type>().value(0).to_bits()),
        DataType::Float32 => format!("{text} ({:#010x})", value.as_primitive::<Float32Type>().value(0).to_bits()),
        _ => text,
    }
}
