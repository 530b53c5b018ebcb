//! Why a training set cannot be built.

use arrow::error::ArrowError;
use larder_columns::ArrayError;
use larder_serving::RequestError;
use larder_source::SourceError;

use super::kernel::TooManyRows;

/// Why a training set cannot be built. A front end adds the hints that name its options.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The entity rows have no column with this name.
    #[error("the entity rows have no column '{column}'{hint}")]
    MissingColumn {
        /// The column.
        column: String,
        /// The most similar column, to append to the message, or an empty string.
        hint: String,
    },
    /// The entity rows do not have the time column.
    #[error("the entity rows have no column '{column}' with their times. Their columns are {}", names(columns))]
    NoTimeColumn {
        /// The requested column.
        column: String,
        /// The columns of the entity rows.
        columns: Vec<String>,
    },
    /// The time column does not have times.
    #[error("column '{column}' of the entity rows: {why}")]
    NotTimes {
        /// The column.
        column: String,
        /// The reason.
        why: String,
        /// Whether the values are text.
        is_text: bool,
    },
    /// The entity rows have several columns with this name.
    #[error("the entity rows have more than one column '{0}'")]
    Duplicate(String),
    /// A value of the entity rows cannot be used.
    #[error("entity row {row}, column '{column}': {why}")]
    Value {
        /// The index of the row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The reason.
        why: String,
    },
    /// The entity rows cannot be read.
    #[error("entity rows: {0}")]
    Entities(Box<dyn std::error::Error + Send + Sync>),
    /// Entity rows have no time, and the job is strict.
    #[error("some entity rows have nulls in the time column '{column}'")]
    NoTime {
        /// The time column.
        column: String,
    },
    /// Entity rows have no complete key, and the job is strict.
    #[error("some entity rows have no complete key for feature view '{view}'")]
    NoKey {
        /// The view.
        view: String,
    },
    /// A column of the entity rows cannot be used.
    #[error("column '{column}' of the entity rows: {why}")]
    Column {
        /// The column.
        column: String,
        /// The reason.
        why: String,
    },
    /// A column that the request uses has pickled objects of Python.
    #[error(
        "column '{0}' has Python objects (ray.data.arrow_pickled_object), not Arrow values. hint: instead of filter or map \
         with a function, use filter(expr=...), or map_batches with batch_format='pyarrow'"
    )]
    PythonObjects(String),
    /// A column of the entity rows has the name of a feature.
    #[error("column '{0}' of the entity rows has the name of a requested feature")]
    Collision(String),
    /// A frame lacks a stored feature that a derived view reads.
    #[error(
        "the frame has no column '{column}', which a derived view reads as feature '{feature}'{hint}. hint: join the feature \
         first, with the same full_feature_names"
    )]
    MissingFeature {
        /// The column.
        column: String,
        /// The feature, as `view:feature`.
        feature: String,
        /// The most similar column, to insert in the message, or an empty string.
        hint: String,
    },
    /// Several stored features that derived views read would be the same column of a frame.
    #[error(
        "features '{}' and '{}' have the same column '{column}'. hint: set full_feature_names", features.0, features.1
    )]
    AmbiguousColumn {
        /// The column.
        column: String,
        /// The features, as `view:feature`.
        features: (String, String),
    },
    /// A request for derived features has none.
    #[error("the request has no derived features. hint: request features of derived views")]
    NoDerived,
    /// The requested features cannot be resolved, or a value of the entity rows cannot be used.
    #[error(transparent)]
    Request(RequestError),
    /// The plugin of a derived view with `on_error: fail` could not compute a row.
    #[error("entity row {row}: plugin '{plugin}' failed to compute derived view '{view}': {why}")]
    Plugin {
        /// The index of the row, from 0.
        row: usize,
        /// The view.
        view: String,
        /// The plugin.
        plugin: String,
        /// The reason.
        why: String,
    },
    /// The plugin of a derived view is not loaded.
    #[error(
        "derived view '{view}' needs plugin '{plugin}', which is not loaded. hint: put {plugin}.wasm into 'plugins: dir'"
    )]
    NoPlugin {
        /// The view.
        view: String,
        /// The plugin.
        plugin: String,
    },
    /// A view has no files.
    #[error("feature view '{0}' has no Parquet files, so it has no history. hint: set its 'batch_source'")]
    NoFiles(String),
    /// The rows of a view have no event times.
    #[error(
        "the files of feature view '{0}' have no event times, so its values at a time are unknown. hint: set \
         'timestamp_field'"
    )]
    NoEventTimes(String),
    /// A source cannot be read.
    #[error("feature view '{view}': {source}")]
    Source {
        /// The view.
        view: String,
        /// The reason.
        source: SourceError,
    },
    /// The values of a derived feature depend on the other rows of a batch.
    #[error(
        "derived view '{view}': plugin '{plugin}' returns different values of feature '{feature}' for entity rows {} if the \
         rows are computed {when}. hint: change the plugin so that each row depends only on its own inputs",
        numbers(rows)
    )]
    NotIndependent {
        /// The view.
        view: String,
        /// The plugin.
        plugin: String,
        /// The feature.
        feature: String,
        /// The indexes of the entity rows.
        rows: Vec<u64>,
        /// How the rows were computed.
        when: &'static str,
    },
    /// The job was stopped.
    #[error("the run was stopped")]
    Stopped,
    /// Files changed while they were read.
    #[error("feature view '{0}': its files changed while they were read. hint: repeat the run")]
    Changed(String),
    /// A feature row cannot be stored.
    #[error("feature view '{view}': {location}: {why}")]
    Row {
        /// The view.
        view: String,
        /// The file and the row.
        location: String,
        /// The reason.
        why: String,
    },
    /// There are too many entity rows.
    #[error(transparent)]
    TooManyRows(#[from] TooManyRows),
    /// An output column cannot be built.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// Arrow rejects an output column, which is a bug in Larder.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Returns the first names as text.
fn names(all: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<String> = all.iter().take(SHOWN).map(|name| format!("'{name}'")).collect();
    let more = all.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Returns the first numbers as text.
fn numbers(all: &[u64]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = all.iter().take(SHOWN).map(u64::to_string).collect();
    let more = all.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

// === impl TrainingError ===

impl TrainingError {
    /// Returns the error of entity rows that cannot be read.
    #[must_use]
    pub fn of_entities(error: ArrowError) -> Self {
        match error {
            ArrowError::ExternalError(source) => Self::Entities(source),
            other => Self::Entities(other.into()),
        }
    }
}

impl From<RequestError> for TrainingError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::MissingKeys { mut missing, .. } if !missing.is_empty() => {
                Self::MissingColumn { column: missing.swap_remove(0), hint: ". hint: add the join key".to_owned() }
            }
            RequestError::Plugin { view, plugin, row, details, .. } => Self::Plugin { row, view, plugin, why: details },
            other => Self::Request(other),
        }
    }
}
