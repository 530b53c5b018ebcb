//! A common form for all stored views of a registry: plain, stream and label views, and on-demand views whose values
//! are computed when rows are written.

use std::collections::HashMap;

use super::{fields::Finding, proto};
use crate::model::Micros;

/// A stored view of any kind.
pub(super) struct Stored<'p> {
    pub(super) name: &'p str,
    pub(super) project: &'p str,
    pub(super) entities: &'p [String],
    pub(super) entity_columns: &'p [proto::FeatureSpec],
    pub(super) features: &'p [proto::FeatureSpec],
    pub(super) ttl: Option<&'p proto::Span>,
    pub(super) batch_source: Option<&'p proto::DataSource>,
    pub(super) stream_source: Option<&'p proto::DataSource>,
    pub(super) disabled: bool,
    pub(super) online: bool,
    /// Why Larder cannot load the view's rows from its batch source; `None` if Larder can.
    pub(super) unloadable_because: Option<&'static str>,
    /// Whether rows are only pushed to the view, and there are no files to load them from.
    pub(super) is_only_pushed: bool,
    /// The number of the view's current version.
    pub(super) version: i32,
    /// The number of the view's state in Feast.
    pub(super) state: i32,
    pub(super) created: Option<Micros>,
    pub(super) description: &'p str,
    pub(super) tags: &'p HashMap<String, String>,
    /// The settings of the view that are not supported.
    pub(super) findings: &'p [Finding],
}

/// Why a view's rows cannot be loaded from its batch source.
const TRANSFORMED: &str = "it has a transformation, which Larder does not run: its rows are those that Feast's own \
                           'materialize' writes to the online store";
pub(super) const AGGREGATED: &str = "it has aggregations, which Larder does not compute";
const OF_VIEWS: &str = "it combines other feature views, which Larder does not do: its rows are those that Feast's \
                        own 'materialize' writes to the online store";
const ON_DEMAND: &str = "it is an on-demand view with write_to_online_store=True, whose Python Larder does not run: its \
                         rows are those that Feast's own 'materialize' or callers write";
const LABELS: &str = "it is a label view: its rows are pushed, as in Feast";

// === impl Stored ===

impl<'p> Stored<'p> {
    pub(super) fn of_view((view, findings): (&'p proto::FeatureView, &'p [Finding])) -> Option<Self> {
        let spec = view.spec.as_ref()?;
        let unloadable_because = if spec.feature_transformation.is_some() {
            Some(TRANSFORMED)
        } else {
            (!spec.source_views.is_empty()).then_some(OF_VIEWS)
        };
        Some(Self {
            name: &spec.name,
            project: &spec.project,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: spec.ttl.as_ref(),
            batch_source: spec.batch_source.as_ref(),
            stream_source: spec.stream_source.as_ref(),
            disabled: spec.disabled,
            online: spec.online,
            unloadable_because,
            is_only_pushed: false,
            version: view.meta.as_ref().map_or(0, |meta| meta.current_version_number),
            state: view.meta.as_ref().map_or(0, |meta| meta.state),
            created: view.meta.as_ref().and_then(|meta| meta.created_timestamp.as_ref()?.micros()),
            description: &spec.description,
            tags: &spec.tags,
            findings,
        })
    }

    pub(super) fn of_stream_view((view, findings): (&'p proto::StreamFeatureView, &'p [Finding])) -> Option<Self> {
        let spec = view.spec.as_ref()?;
        let unloadable_because = if spec.feature_transformation.is_some() || spec.user_defined_function.is_some() {
            Some(TRANSFORMED)
        } else {
            (!spec.aggregations.is_empty()).then_some(AGGREGATED)
        };
        Some(Self {
            name: &spec.name,
            project: &spec.project,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: spec.ttl.as_ref(),
            batch_source: spec.batch_source.as_ref(),
            stream_source: spec.stream_source.as_ref(),
            disabled: spec.disabled,
            online: spec.online,
            unloadable_because,
            is_only_pushed: false,
            version: view.meta.as_ref().map_or(0, |meta| meta.current_version_number),
            state: view.meta.as_ref().map_or(0, |meta| meta.state),
            created: view.meta.as_ref().and_then(|meta| meta.created_timestamp.as_ref()?.micros()),
            description: &spec.description,
            tags: &spec.tags,
            findings,
        })
    }

    pub(super) fn of_label_view((view, findings): (&'p proto::LabelView, &'p [Finding])) -> Option<Self> {
        let spec = view.spec.as_ref()?;
        Some(Self {
            name: &spec.name,
            project: &spec.project,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: spec.ttl.as_ref(),
            // The batch source is for training. Feast does not load it into the online store.
            batch_source: None,
            stream_source: spec.source.as_ref(),
            disabled: false,
            online: spec.online,
            unloadable_because: Some(LABELS),
            is_only_pushed: true,
            version: 0,
            state: 0,
            created: None,
            description: &spec.description,
            tags: &spec.tags,
            findings,
        })
    }

    /// Returns an on-demand view whose values are computed when rows are written.
    pub(super) fn of_on_demand_view(
        spec: &'p proto::OnDemandFeatureViewSpec,
        meta: Option<&'p proto::OnDemandFeatureViewMeta>,
        findings: &'p [Finding],
    ) -> Self {
        Self {
            name: &spec.name,
            project: &spec.project,
            entities: &spec.entities,
            entity_columns: &spec.entity_columns,
            features: &spec.features,
            ttl: None,
            batch_source: None,
            stream_source: None,
            disabled: spec.disabled,
            online: true,
            unloadable_because: Some(ON_DEMAND),
            is_only_pushed: false,
            version: meta.map_or(0, |meta| meta.current_version_number),
            state: meta.map_or(0, |meta| meta.state),
            created: None,
            description: &spec.description,
            tags: &spec.tags,
            findings,
        }
    }
}
