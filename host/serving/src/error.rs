//! Errors of requests. If Feast has the same error, the message is the same as in Feast 0.67.

use std::{fmt, sync::Arc};

use larder_common::memory::OverBudget;
use larder_plugin_host::Transform;
use larder_store::StoreError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request has neither features nor a service.
    #[error("No features specified for retrieval")]
    NoFeatures,
    /// A feature reference is not `view:feature`.
    #[error(
        "Invalid feature reference '{}'. Expected format: '<feature_view>:<feature>' or '<feature_view>@<version>:<feature>'",
        Cut(.0)
    )]
    BadReference(String),
    /// A feature reference names a version of a view, such as `view@v2:feature`.
    #[error(
        "Version-qualified ref '{}' not supported: online versioning is disabled. Set 'enable_online_feature_view_versioning: true' under 'registry' in feature_store.yaml.",
        Cut(.0)
    )]
    Versioned(String),
    /// The view does not exist.
    #[error("Feature view {} does not exist in project {project}{}", Cut(view), Suggestion(nearest))]
    UnknownView {
        /// The view.
        view: String,
        /// The project.
        project: String,
        /// The view with the most similar name, if there is one.
        nearest: Option<String>,
    },
    /// The service does not exist.
    #[error("Feature service {} does not exist in project {project}{}", Cut(service), Suggestion(nearest))]
    UnknownService {
        /// The service.
        service: String,
        /// The project.
        project: String,
        /// The service with the most similar name, if there is one.
        nearest: Option<String>,
    },
    /// The Feast registry has a definition that Larder cannot serve.
    #[error("Feature {what} {name} cannot be served by Larder: {why}")]
    Unservable {
        /// `view` or `service`.
        what: &'static str,
        /// The name of the view or service.
        name: String,
        /// The reason.
        why: String,
    },
    /// The view has no such feature.
    #[error("Feature {} not found in projection {}{}", Cut(feature), Cut(view), Suggestion(nearest))]
    UnknownFeature {
        /// The feature.
        feature: String,
        /// The view, by its alias if it has one.
        view: String,
        /// The view's feature with the most similar name, if there is one.
        nearest: Option<String>,
    },
    /// Two columns would have the same name.
    #[error("{}", collision(names, *full_names))]
    Collision {
        /// The names.
        names: Vec<String>,
        /// Whether full feature names were requested.
        full_names: bool,
    },
    /// The columns have different lengths.
    #[error("All entity rows must have the same columns.")]
    Ragged,
    /// The request has no entity column, but a view needs one.
    #[error("pop from an empty set")]
    NoEntities,
    /// A view has join keys, and the request has a column for none of them, or the columns are empty.
    #[error(
        "Missing join key values for keys: {}. No values provided for keys: {}. Provided join_key_values: {}",
        list(missing),
        list(empty),
        list(provided)
    )]
    MissingKeys {
        /// The join keys of the requested views for which the request has no column.
        missing: Vec<String>,
        /// The join keys of the requested views whose column is empty.
        empty: Vec<String>,
        /// The request's entity columns.
        provided: Vec<String>,
    },
    /// The request lacks columns that derived views need.
    #[error(
        "Required request data source features {} not found in the entity rows, but required by feature views",
        list(names)
    )]
    MissingRequestData {
        /// The names of the missing columns.
        names: Vec<String>,
    },
    /// A value for a derived view does not have the expected type.
    #[error("request data '{name}', row {row}: {found} is not {declared}")]
    BadRequestData {
        /// The column.
        name: String,
        /// The index of the row, from 0.
        row: usize,
        /// The expected type.
        declared: String,
        /// A description of the caller's value.
        found: String,
    },
    /// A derived view with `on_error: fail` has no plugin.
    #[error("derived view {view} has no plugin. hint: deploy {plugin}.wasm")]
    NoPlugin {
        /// The view.
        view: String,
        /// The plugin that would compute it.
        plugin: String,
    },
    /// The plugin of a derived view with `on_error: fail` could not compute a row.
    #[error("derived view {view}, row {row}, could not be computed by plugin {plugin}: {why}")]
    Plugin {
        /// The view.
        view: String,
        /// The plugin.
        plugin: String,
        /// The index of the first row that failed, from 0.
        row: usize,
        /// The reason, as far as clients may see it.
        why: String,
        /// The complete reason, for training sets, whose callers may see it.
        details: String,
    },
    /// A value of an entity column cannot be converted to the column's type.
    #[error("{}", Cut(.0))]
    BadKey(String),
    /// As [`RequestError::BadKey`], for an entity row of a training set.
    #[error("entity row {row}, column '{column}': {}", Cut(.why))]
    BadEntity {
        /// The column.
        column: String,
        /// The index of the row, from 0.
        row: usize,
        /// The reason.
        why: String,
    },
    /// The request exceeds a limit.
    #[error(
        "{what}: {found} in this request, at most {limit} are allowed. hint: split the request, or raise 'server: \
         limits: {}'",
        setting(what)
    )]
    TooLarge {
        /// What the limit applies to.
        what: &'static str,
        /// The number in the request.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The response has too many bytes.
    #[error(
        "the response has more than {limit} bytes. hint: request fewer rows or features, or raise 'server: limits: \
         answer_bytes_max'"
    )]
    AnswerTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The request does not fit into the memory budget, or the process is close to its memory limit.
    #[error(transparent)]
    Memory(#[from] OverBudget),
    /// The request would take too long for a serving thread. Clients never get this error, because `LookupService`
    /// retries the request on a compute thread.
    #[error("the request takes too long for a serving thread")]
    TooLong,
    /// A call of this plugin failed on a serving thread or a compute thread. Clients never get this error, because
    /// `LookupService` retries the request on a compute thread or an isolation thread.
    #[error("a plugin failed, and the request has to be retried on other threads")]
    NeedsIsolation(Arc<Transform>),
    /// The store failed. The client did not cause the error.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// Returns the name of the setting for a limit.
fn setting(what: &str) -> &'static str {
    match what {
        "entity rows" => "rows_max",
        "values" => "values_max",
        _ => "features_max",
    }
}

/// Returns Feast's message for `FeatureNameCollisionError`.
fn collision(names: &[String], full_names: bool) -> String {
    let listed: Vec<String> = names.iter().take(LISTED_MAX).map(|name| Cut(name).to_string()).collect();
    let names = format!("{}{}", listed.join(", "), More(names.len()));
    if full_names {
        format!(
            "Duplicate features named {names} found.\nTo resolve this collision, please ensure that the feature views \
             or their own features have different names. If you're intentionally joining the same feature view twice \
             on different sets of entities, please rename one of the feature views with '.with_name'."
        )
    } else {
        format!(
            "Duplicate features named {names} found.\nTo resolve this collision, either use the full feature name by \
             setting 'full_feature_names=True', or ensure that the features in question have different names."
        )
    }
}

/// Formats a list of names as Python does. Lists at most [`LISTED_MAX`] names.
fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().take(LISTED_MAX).map(|name| format!("'{}'", Cut(name))).collect();
    format!("[{}{}]", quoted.join(", "), More(names.len()))
}

/// The maximum number of names or problems that a message or a response lists.
pub const LISTED_MAX: usize = 100;

/// The maximum number of characters of a caller's text that a message repeats.
const ECHO_CHARS_MAX: usize = 500;

/// A caller's text for a message. Its `Display` output is truncated to 500 characters.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'t>(pub &'t str);

/// The length of a list. Its `Display` output is the number of items beyond [`LISTED_MAX`], which a message omits.
struct More(usize);

/// A suggestion in a message: the most similar name, if there is one.
struct Suggestion<'n>(&'n Option<String>);

// === impl Cut ===

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(ECHO_CHARS_MAX) {
            None => f.write_str(self.0),
            Some((end, _)) => write!(f, "{}… ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

// === impl More ===

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

// === impl Suggestion ===

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, "; did you mean '{name}'?"))
    }
}

// === impl RequestError ===

impl RequestError {
    /// Returns whether the message has only names and numbers, and no values of entities or features.
    #[must_use]
    pub fn is_about_names(&self) -> bool {
        let has_values = matches!(
            self,
            Self::BadKey(_)
                | Self::BadEntity { .. }
                | Self::BadRequestData { .. }
                | Self::Plugin { .. }
                | Self::Store(_)
        );
        !has_values
    }

    /// Returns whether the error is that the request names a view, service or feature that is not served.
    #[must_use]
    pub fn has_unknown_name(&self) -> bool {
        matches!(
            self,
            Self::UnknownView { .. }
                | Self::UnknownService { .. }
                | Self::UnknownFeature { .. }
                | Self::Unservable { .. }
        )
    }

    /// Changes the index of the row that the error names, if it names one.
    #[must_use]
    pub fn map_row(mut self, map: impl FnOnce(usize) -> usize) -> Self {
        if let Self::BadEntity { row, .. } | Self::BadRequestData { row, .. } | Self::Plugin { row, .. } = &mut self {
            *row = map(*row);
        }
        self
    }

    /// Removes the suggested name if the caller may not know it.
    #[must_use]
    pub fn hide_names(mut self, may_know: impl Fn(&str) -> bool) -> Self {
        if let Self::UnknownView { nearest, .. }
        | Self::UnknownService { nearest, .. }
        | Self::UnknownFeature { nearest, .. } = &mut self
        {
            nearest.take_if(|name| !may_know(name));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_scope_are_not_suggested() {
        let unknown = || RequestError::UnknownService {
            service: "fraut".to_owned(),
            project: "p".to_owned(),
            nearest: Some("fraud".to_owned()),
        };
        let message = |may_know| unknown().hide_names(|name| name == may_know).to_string();
        assert_eq!(message("fraud"), "Feature service fraut does not exist in project p; did you mean 'fraud'?");
        assert_eq!(message("churn"), "Feature service fraut does not exist in project p");
    }

    #[test]
    fn row_of_an_error_is_mapped() {
        let why = || "no".to_owned();
        let row = 2;
        for error in [
            RequestError::BadEntity { column: why(), row, why: why() },
            RequestError::BadRequestData { name: why(), row, declared: why(), found: why() },
            RequestError::Plugin { view: why(), plugin: why(), row, why: why(), details: why() },
        ] {
            let message = error.map_row(|row| row + 40).to_string();
            assert!(message.contains("row 42"), "{message}");
        }
        assert_eq!(RequestError::BadKey(why()).map_row(|row| row + 40).to_string(), "no");
    }

    #[test]
    fn long_input_is_truncated_in_messages() {
        let long = "x".repeat(1 << 20);
        let names: Vec<String> = (0..5_000).map(|n| format!("name_{n}")).collect();
        for error in [
            RequestError::BadReference(long.clone()),
            RequestError::Versioned(long.clone()),
            RequestError::UnknownView { view: long.clone(), project: "p".to_owned(), nearest: None },
            RequestError::UnknownService { service: long.clone(), project: "p".to_owned(), nearest: None },
            RequestError::UnknownFeature { feature: long.clone(), view: long.clone(), nearest: None },
            RequestError::Collision { names: names.clone(), full_names: false },
            RequestError::MissingKeys { missing: names.clone(), empty: Vec::new(), provided: vec![long.clone()] },
            RequestError::BadKey(long),
        ] {
            let message = error.to_string();
            assert!(message.len() < 4_096, "{} bytes: {}", message.len(), &message[..200]);
        }
        let listed = RequestError::MissingRequestData { names }.to_string();
        assert!(listed.contains("'name_99', and 4900 more]") && !listed.contains("name_100'"), "{listed}");
    }
}
