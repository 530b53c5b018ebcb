//! The columns of the log of a feature service.
//!
//! The first columns have the names and the order of Feast's log (`FeatureServiceLoggingSource.get_schema`): for each view of
//! the service, its join keys or its request data, and then each feature with its event time and its status; at the end, the
//! time, the date and the ID of the request. Feast's times are whole seconds, which Parquet does not have; Larder's are
//! microseconds, as in Arrow responses.
//!
//! Larder's own columns follow. They have everything that is needed to compute the same values again: keys and request data
//! that only derived views read, and the versions of definitions and components.

use std::{collections::HashSet, sync::Arc};

use larder_model::{
    model::{DerivedView, FeatureView, InputSource, ScalarType, ValueType},
    registry::Catalog,
};
use larder_serving::TtlPolicy;

/// The column of the time of the lookup, which is the as-of time of the row.
pub const LOG_TIMESTAMP: &str = "__log_timestamp";
/// The column of the date of the lookup in UTC.
pub const LOG_DATE: &str = "__log_date";
/// The column of the ID of the request. All rows of a request have the same ID.
pub const REQUEST_ID: &str = "__request_id";
/// The column of the digest of the definitions.
pub const DEFINITIONS: &str = "__larder_definitions";
/// The column of the server's setting `serving: ttl`.
pub const TTL: &str = "__larder_ttl";
/// The prefix of the column of a view's last load before the request. The name of the view follows.
pub const LOADED_PREFIX: &str = "__larder_loaded__";
/// The prefix of the column of the event time of the row that derived views read. The name of the row's view follows.
pub const READ_PREFIX: &str = "__larder_read__";
/// The prefix of the column of the digest of a component. The name of the derived view follows.
pub const COMPONENT_PREFIX: &str = "__larder_component__";
/// The key of the service's name in the metadata of a file.
pub const SERVICE_KEY: &str = "larder.service";
/// The key of Larder's version in the metadata of a file.
pub const VERSION_KEY: &str = "larder.version";

/// The columns of the log of a feature service.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSchema {
    /// The columns, in order. Their names are distinct.
    pub columns: Vec<LogColumn>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct LogColumn {
    /// The name.
    pub name: String,
    /// The origin of the values.
    pub origin: Origin,
}

/// The origin of the values of a column. Indexes of features are those of [`larder_serving::Plan::feature_columns`].
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The values of a join key.
    Key(ScalarType),
    /// Request data.
    RequestData(ValueType),
    /// The values of a feature.
    Feature(usize, ValueType),
    /// The event times of a feature.
    FeatureTime(usize),
    /// The statuses of a feature.
    FeatureStatus(usize),
    /// [`LOG_TIMESTAMP`].
    LogTimestamp,
    /// [`LOG_DATE`].
    LogDate,
    /// [`REQUEST_ID`].
    RequestId,
    /// [`DEFINITIONS`].
    Definitions,
    /// [`TTL`].
    Ttl,
    /// [`LOADED_PREFIX`] and the name of this view.
    Loaded(Arc<str>),
    /// [`READ_PREFIX`] and the name of this view.
    Read(Arc<str>),
    /// [`COMPONENT_PREFIX`] and the name of this derived view.
    Component(Arc<str>),
}

/// Collects columns. The first column of a name counts, as in Feast.
#[derive(Default)]
struct Columns {
    columns: Vec<LogColumn>,
    names: HashSet<String>,
}

/// The views that the requests for a service read, each once.
#[derive(Default)]
struct Views<'c> {
    stored: Vec<&'c Arc<FeatureView>>,
    /// The stored views that derived views read.
    inputs: Vec<&'c Arc<FeatureView>>,
    derived: Vec<&'c Arc<DerivedView>>,
}

/// Returns the name of a policy in the column [`TTL`] and in the setting `serving: ttl`.
#[must_use]
pub fn ttl_name(ttl: TtlPolicy) -> &'static str {
    match ttl {
        TtlPolicy::Mark => "mark",
        TtlPolicy::Null => "null",
        TtlPolicy::Ignore => "ignore",
    }
}

// === impl LogSchema ===

impl LogSchema {
    /// Returns the name of a feature of the service whose value, event time or status has no column of its own, because another
    /// column has the name; `None` if all features are logged.
    #[must_use]
    pub fn unlogged_feature(&self, catalog: &Catalog, service: &str) -> Option<String> {
        let service = catalog.service(service)?;
        let features = service.projections.iter().flat_map(|projection| {
            projection.features.iter().map(move |feature| format!("{}:{feature}", projection.prefix()))
        });
        let columns_of = |index: usize| {
            let is_of = |column: &&LogColumn| match column.origin {
                Origin::Feature(of, _) | Origin::FeatureTime(of) | Origin::FeatureStatus(of) => of == index,
                _ => false,
            };
            self.columns.iter().filter(is_of).count()
        };
        features.enumerate().find_map(|(index, feature)| (columns_of(index) < 3).then_some(feature))
    }

    /// Returns the columns of the log of a service. Returns `None` if the catalog does not have the service.
    #[must_use]
    pub fn of(catalog: &Catalog, service: &str) -> Option<Self> {
        let service = catalog.service(service)?;
        let (mut columns, mut views, mut feature) = (Columns::default(), Views::default(), 0);
        for projection in &service.projections {
            let mut types = Vec::new();
            if let Some(derived) = catalog.derived_view(&projection.view) {
                columns.add_request_data(derived);
                views.add_derived(catalog, derived);
                types.extend(derived.features.iter().map(|feature| (&feature.name, feature.value_type)));
            } else if let Some(view) = catalog.view(&projection.view) {
                for key in keys(catalog, view) {
                    columns.add(projection.request_column(key), Origin::Key(key_type(catalog, key)));
                }
                views.add_stored(view);
                types.extend(view.features.iter().map(|feature| (&feature.name, feature.value_type)));
            }
            for name in &projection.features {
                let value_type = types.iter().find(|(of, _)| *of == name).map(|(_, value_type)| *value_type);
                let full_name = format!("{}__{name}", projection.prefix());
                columns.add(
                    &full_name,
                    Origin::Feature(feature, value_type.unwrap_or(ValueType::Scalar(ScalarType::String))),
                );
                columns.add(&format!("{full_name}__timestamp"), Origin::FeatureTime(feature));
                columns.add(&format!("{full_name}__status"), Origin::FeatureStatus(feature));
                feature += 1;
            }
        }
        columns.add(LOG_TIMESTAMP, Origin::LogTimestamp);
        columns.add(LOG_DATE, Origin::LogDate);
        columns.add(REQUEST_ID, Origin::RequestId);
        columns.add(DEFINITIONS, Origin::Definitions);
        columns.add(TTL, Origin::Ttl);
        for view in &views.derived {
            columns.add_request_data(view);
            for input in &view.inputs {
                if let InputSource::JoinKey(key) = &input.from {
                    columns.add(key, Origin::Key(key_type(catalog, key)));
                }
            }
        }
        for view in &views.inputs {
            keys(catalog, view).for_each(|key| columns.add(key, Origin::Key(key_type(catalog, key))));
        }
        for view in &views.stored {
            columns.add(&format!("{LOADED_PREFIX}{}", view.name), Origin::Loaded(Arc::clone(&view.name)));
        }
        for view in &views.inputs {
            columns.add(&format!("{READ_PREFIX}{}", view.name), Origin::Read(Arc::clone(&view.name)));
        }
        for view in &views.derived {
            columns.add(&format!("{COMPONENT_PREFIX}{}", view.name), Origin::Component(Arc::clone(&view.name)));
        }
        Some(Self { columns: columns.columns })
    }
}

/// Returns the join keys of a view, in the order of its entities.
fn keys<'c>(catalog: &'c Catalog, view: &'c FeatureView) -> impl Iterator<Item = &'c Arc<str>> {
    view.entities.iter().filter_map(|entity| Some(&catalog.entity(entity)?.join_key))
}

fn key_type(catalog: &Catalog, key: &str) -> ScalarType {
    catalog.join_keys().get(key).copied().unwrap_or(ScalarType::String)
}

// === impl Columns ===

impl Columns {
    fn add(&mut self, name: &str, origin: Origin) {
        if self.names.insert(name.to_owned()) {
            self.columns.push(LogColumn { name: name.to_owned(), origin });
        }
    }

    fn add_request_data(&mut self, view: &DerivedView) {
        view.request_inputs().for_each(|input| self.add(&input.name, Origin::RequestData(input.value_type)));
    }
}

// === impl Views ===

impl<'c> Views<'c> {
    fn add_stored(&mut self, view: &'c Arc<FeatureView>) {
        if !self.stored.iter().any(|known| known.name == view.name) {
            self.stored.push(view);
        }
    }

    /// Adds a derived view and all views that it reads.
    fn add_derived(&mut self, catalog: &'c Catalog, view: &'c Arc<DerivedView>) {
        if self.derived.iter().any(|known| known.name == view.name) {
            return;
        }
        self.derived.push(view);
        for input in &view.inputs {
            let InputSource::Feature { view, .. } = &input.from else { continue };
            if let Some(derived) = catalog.derived_view(view) {
                self.add_derived(catalog, derived);
            } else if let Some(view) = catalog.view(view) {
                self.add_stored(view);
                if !self.inputs.iter().any(|known| known.name == view.name) {
                    self.inputs.push(view);
                }
            }
        }
    }
}
