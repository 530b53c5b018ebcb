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

/// The part of entity rows with a feature row at exactly their times from which on a warning is due: one in this many.
const SAME_TIME: u64 = 10;
/// The part of entity rows with an expired feature row from which on a warning is due: one in this many.
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
        for ViewReport { view, no_key, late, same_time, matched, expired, skipped, .. } in &report.views {
            let view = || view.clone();
            let of = matched + expired;
            warn(*no_key, Self::NoKey { view: view(), rows: *no_key });
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
        let entity_rows =
            |rows: &u64| if *rows == 1 { "1 entity row".to_owned() } else { format!("{rows} entity rows") };
        match self {
            Self::NoTime { rows } => write!(f, "{} without a time: the features are null", entity_rows(rows)),
            Self::Future { time } => {
                write!(f, "entity rows up to {time}, which is in the future: later feature rows may change the values")
            }
            Self::NoKey { view, rows } => {
                write!(f, "view '{view}': {} without a complete key: the features are null", entity_rows(rows))
            }
            Self::Late { view, rows } => write!(
                f,
                "view '{view}': {} with a feature row that was created after the entity row's time; a lookup at that time would \
                 not have found it. hint: --known-at created leaves such rows out",
                entity_rows(rows)
            ),
            Self::SameTime { view, rows, of } => write!(
                f,
                "view '{view}': {} of {of} with a feature row at exactly the entity row's time. hint: check that the features do \
                 not contain the label",
                entity_rows(rows)
            ),
            Self::Expired { view, rows, of } => write!(
                f,
                "view '{view}': {} of {of} with a feature row older than the view's ttl. hint: check the ttl, and whether files \
                 are missing",
                entity_rows(rows)
            ),
            Self::Skipped { view, rows } => {
                write!(f, "view '{view}': {rows} feature rows without a key or an event time were skipped")
            }
            Self::Failed { view, rows } => {
                write!(f, "derived view '{view}': the plugin could not compute {}", entity_rows(rows))
            }
        }
    }
}
