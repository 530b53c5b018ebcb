//! Warnings about a training set: rows that were not found, and values that a lookup could not have returned.

use std::fmt::{self, Display, Formatter};

use larder_common::clock::python_text;
use larder_model::model::Micros;
use larder_training::{Report, ViewReport};

/// A warning about a training set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Entity rows have no time.
    NoTime {
        /// The number of rows.
        rows: u64,
    },
    /// The latest entity row has a time in the future.
    Future {
        /// The time, as text.
        time: String,
    },
    /// Entity rows have no complete key of a view.
    NoKey {
        /// The view.
        view: String,
        /// The number of rows.
        rows: u64,
    },
    /// No entity row has a feature row.
    NothingFound {
        /// The view.
        view: String,
        /// The number of entity rows with a time and a key.
        rows: u64,
    },
    /// Entity rows use feature rows that were created after the rows' times.
    Late {
        /// The view.
        view: String,
        /// The number of rows.
        rows: u64,
    },
    /// Many entity rows use feature rows with exactly their times, which may contain the label.
    SameTime {
        /// The view.
        view: String,
        /// The number of rows.
        rows: u64,
        /// The number of rows with a feature row.
        of: u64,
    },
    /// Many entity rows have expired feature rows.
    Expired {
        /// The view.
        view: String,
        /// The number of rows.
        rows: u64,
        /// The number of rows with a feature row.
        of: u64,
    },
    /// Feature rows have no key or no event time.
    Skipped {
        /// The view.
        view: String,
        /// The number of feature rows.
        rows: u64,
    },
    /// A plugin could not compute rows.
    Failed {
        /// The derived view.
        view: String,
        /// The number of rows.
        rows: u64,
    },
}

/// Larder warns if at least one in this many entity rows with a feature row have one with exactly their times.
const SAME_TIME: u64 = 10;
/// Larder warns if at least one in this many entity rows with a feature row have an expired one.
const EXPIRED: u64 = 2;

// === impl Warning ===

impl Warning {
    /// Returns the warnings about a training set that was built at the time `now`.
    #[must_use]
    pub fn of(report: &Report, now: Micros) -> Vec<Self> {
        let mut warnings = Vec::new();
        let mut warn = |rows: u64, warning: Self| {
            if rows > 0 {
                warnings.push(warning);
            }
        };
        warn(report.rows_without_time, Self::NoTime { rows: report.rows_without_time });
        if let Some(time) = report.latest_time.filter(|time| *time > now) {
            warn(1, Self::Future { time: python_text(time).unwrap_or_else(|| time.to_string()) });
        }
        for ViewReport { view, no_key, late, same_time, matched, expired, not_found, skipped, .. } in &report.views {
            let view = || view.clone();
            let of = matched + expired;
            warn(*no_key, Self::NoKey { view: view(), rows: *no_key });
            if of == 0 {
                warn(*not_found, Self::NothingFound { view: view(), rows: *not_found });
            }
            warn(*late, Self::Late { view: view(), rows: *late });
            if same_time * SAME_TIME >= of {
                warn(*same_time, Self::SameTime { view: view(), rows: *same_time, of });
            }
            if expired * EXPIRED >= of {
                warn(*expired, Self::Expired { view: view(), rows: *expired, of });
            }
            warn(*skipped, Self::Skipped { view: view(), rows: *skipped });
        }
        for derived in &report.derived {
            warn(derived.failed, Self::Failed { view: derived.view.clone(), rows: derived.failed });
        }
        warnings
    }
}

impl Display for Warning {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let counted = |rows: u64, one: &str, many: &str| format!("{rows} {}", if rows == 1 { one } else { many });
        let entity_rows = |rows: u64| counted(rows, "entity row has", "entity rows have");
        match self {
            Self::NoTime { rows } => write!(f, "{} no time, so the features are null", entity_rows(*rows)),
            Self::Future { time } => write!(
                f,
                "the latest entity row has the time {time}, which is in the future, so later feature rows may change its values"
            ),
            Self::NoKey { view, rows } => {
                write!(f, "feature view '{view}': {} no complete key, so the features are null", entity_rows(*rows))
            }
            Self::NothingFound { view, rows } => write!(
                f,
                "feature view '{view}': no feature row was found for {}. hint: compare the keys and the times of the entity rows \
                 with those of the view's files, and check the ttl",
                counted(*rows, "entity row", "entity rows")
            ),
            Self::Late { view, rows } => write!(
                f,
                "feature view '{view}': {} a feature row that was created after the entity row's time; a lookup at that time \
                 would not have found it. hint: use --known-at created, which ignores feature rows that were created later",
                entity_rows(*rows)
            ),
            Self::SameTime { view, rows, of } => write!(
                f,
                "feature view '{view}': {rows} of {of} entity rows have a feature row with exactly the same time. hint: check \
                 that the features do not contain the label"
            ),
            Self::Expired { view, rows, of } => write!(
                f,
                "feature view '{view}': {rows} of {of} entity rows have a feature row that is older than the view's ttl. hint: \
                 check the ttl, and whether files are missing"
            ),
            Self::Skipped { view, rows } => write!(
                f,
                "feature view '{view}': skipped {} without a key or an event time",
                counted(*rows, "feature row", "feature rows")
            ),
            Self::Failed { view, rows } => write!(
                f,
                "derived view '{view}': the plugin could not compute {}",
                counted(*rows, "entity row", "entity rows")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(view: ViewReport) -> Vec<String> {
        let view = ViewReport { view: "stats".to_owned(), ..view };
        let report = Report { rows: 4, views: vec![view], ..Report::default() };
        Warning::of(&report, 0).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn missing_feature_rows_are_reported() {
        assert_eq!(warnings(ViewReport { not_found: 3, matched: 1, ..ViewReport::default() }), [""; 0]);
        assert_eq!(
            warnings(ViewReport { not_found: 4, ..ViewReport::default() }),
            [
                "feature view 'stats': no feature row was found for 4 entity rows. hint: compare the keys and the times of the entity \
              rows with those of the view's files, and check the ttl"
            ]
        );
        let no_key = warnings(ViewReport { no_key: 4, ..ViewReport::default() });
        assert_eq!(no_key, ["feature view 'stats': 4 entity rows have no complete key, so the features are null"]);
    }
}
