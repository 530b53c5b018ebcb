//! Why a request cannot be answered. Messages are Feast's own where Feast has the case (observed on 0.67).

use crate::store::StoreError;

/// Why a request cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Neither features nor a service.
    #[error("No features specified for retrieval")]
    NoFeatures,
    /// A reference that is not `view:feature`.
    #[error(
        "Invalid feature reference '{0}'. Expected format: '<feature_view>:<feature>' or '<feature_view>@<version>:<feature>'"
    )]
    BadReference(String),
    /// A reference to a version of a view.
    #[error(
        "Version-qualified ref '{0}' not supported: online versioning is disabled. Set 'enable_online_feature_view_versioning: true' under 'registry' in feature_store.yaml."
    )]
    Versioned(String),
    /// There is no such view.
    #[error("Feature view {view} does not exist in project {project}")]
    UnknownView {
        /// The view.
        view: String,
        /// The project.
        project: String,
    },
    /// There is no such service.
    #[error("Feature service {service} does not exist in project {project}")]
    UnknownService {
        /// The service.
        service: String,
        /// The project.
        project: String,
    },
    /// Something that a registry of Feast's defines, and that cannot be served here.
    #[error("Feature {what} {name} cannot be served by Larder: {why}")]
    Unservable {
        /// Whether it is a view or a service.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// The view has no such feature.
    #[error("Feature {feature} not found in projection {view}")]
    UnknownFeature {
        /// The feature.
        feature: String,
        /// The view, by its alias if it has one.
        view: String,
    },
    /// Two answers would have one name.
    #[error("{}", collision(names, *full_names))]
    Collision {
        /// The names.
        names: Vec<String>,
        /// Whether full names were asked for.
        full_names: bool,
    },
    /// Columns of different lengths.
    #[error("All entity rows must have the same columns.")]
    Ragged,
    /// No entity column at all, where one is needed.
    #[error("pop from an empty set")]
    NoEntities,
    /// None of a view's join keys is there, or all are empty.
    #[error(
        "Missing join key values for keys: {}. No values provided for keys: {}. Provided join_key_values: {}",
        list(missing),
        list(empty),
        list(provided)
    )]
    MissingKeys {
        /// Join keys without a column.
        missing: Vec<String>,
        /// Join keys without a value.
        empty: Vec<String>,
        /// Columns that there are.
        provided: Vec<String>,
    },
    /// Columns that derived views want of the caller, and that are not there.
    #[error(
        "Required request data source features {} not found in the entity rows, but required by feature views",
        list(names)
    )]
    MissingRequestData {
        /// The columns.
        names: Vec<String>,
    },
    /// A value for a derived view that is not of its type.
    #[error("request data '{name}', row {row}: {found} is not {declared}")]
    BadRequestData {
        /// The column.
        name: String,
        /// The row, from 0.
        row: usize,
        /// The type that it should have.
        declared: String,
        /// What was sent.
        found: String,
    },
    /// A derived view whose features may not be made up, and that has no plugin.
    #[error("derived view {view} has no plugin: nothing computes it until {plugin}.wasm is deployed")]
    NoPlugin {
        /// The view.
        view: String,
        /// The plugin that is to compute it.
        plugin: String,
    },
    /// A derived view whose features may not be made up, and whose plugin failed.
    #[error("derived view {view} could not be computed: {why}")]
    Plugin {
        /// The view.
        view: String,
        /// What may be said of it.
        why: String,
    },
    /// A key that is null.
    #[error("attribute name must be string, not 'NoneType'")]
    NullKey,
    /// A key that is not of its type.
    #[error("{0}")]
    BadKey(String),
    /// More of something than is allowed.
    #[error("{what}: {found} in this request, at most {limit} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much there may be.
        limit: usize,
    },
    /// The store failed: not the caller's doing.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// Feast's words (`FeatureNameCollisionError`).
fn collision(names: &[String], full_names: bool) -> String {
    let names = names.join(", ");
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

/// A list as Python prints it.
fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(", "))
}
