//! The derived part of a plan: which plugins to call, in which order, and where their inputs come from.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use larder_common::log_interval::LogInterval;
use larder_model::{
    codec::{RowBuilder, RowSchema, RowView},
    model::{DerivedView, InputSource, OnError, ScalarType, Value, ValueRef, ValueType},
};
use larder_plugin_host::{ColumnType, Comparison, Transform};

use super::{ColumnFrom, EntityColumn, Resolver, Wanted, WantedView};
use crate::{OnlineRequest, RequestError, metrics::DerivedCounters};

/// A derived view to compute.
#[derive(Debug)]
pub struct Step {
    /// The view.
    pub view: Arc<DerivedView>,
    /// The plugin that computes the view; `None` if the plugin is not loaded.
    pub transform: Option<Arc<Transform>>,
    /// The origin of each input of the plugin, in the plugin's order.
    pub inputs: Vec<StepInput>,
    /// The comparison of the plugin with another version, if there is one.
    pub(crate) comparison: Option<Arc<Comparison>>,
    /// The origin of each input of the other version of the comparison, if this version does not read all of them.
    pub(crate) other_inputs: Option<Vec<StepInput>>,
    /// The values that are served for the view's features if the plugin fails or is not loaded.
    fallback: Fallback,
    /// The counters of the view's values.
    pub(crate) counters: DerivedCounters,
    /// The interval of the log line that the plugin is not loaded.
    pub(crate) missing: Arc<LogInterval>,
}

/// The origin of an input of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepInput {
    /// A feature, stored or derived.
    Feature(ColumnFrom),
    /// Request data, by its index in [`super::Plan::request_inputs`].
    Request(usize),
    /// A join key: the index of its column in [`super::Plan::entity_columns`], or `None` if the request does not have
    /// the column; and the type of the join key.
    Key(Option<usize>, ScalarType),
}

/// A column of the request that a derived view needs as input.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestInput {
    /// The index of the column in [`OnlineRequest::entities`].
    pub request_index: usize,
    /// The declared type of the column's values.
    pub value_type: ValueType,
    /// The type to which the column's values are converted.
    pub column_type: ColumnType,
    /// The column's name, for error messages.
    pub name: Arc<str>,
}

/// The values that are served for a view's features if the plugin fails or is not loaded, encoded as a row.
#[derive(Debug)]
struct Fallback {
    schema: RowSchema,
    row: Vec<u8>,
}

/// A derived view that the request needs, either for the response or as an input of another derived view.
pub(super) struct WantedStep<'c> {
    pub(super) view: &'c Arc<DerivedView>,
    /// The origins of the inputs, in the plugin's order. Request columns and keys are not resolved to indexes yet.
    inputs: Vec<WantedInput<'c>>,
    /// The origins of the inputs of the other version of a comparison: see [`Step::other_inputs`].
    other_inputs: Option<Vec<WantedInput<'c>>>,
}

enum WantedInput<'c> {
    Feature(ColumnFrom),
    Request(&'c Arc<str>, ValueType, ColumnType),
    Key(&'c Arc<str>),
}

// === impl Step ===

impl Step {
    /// Returns the value that is served for a feature if the plugin fails or is not loaded.
    #[must_use]
    pub fn fallback(&self, feature: usize) -> ValueRef<'_> {
        let row = RowView::new(&self.fallback.schema, &self.fallback.row);
        row.and_then(|row| row.get(feature)).unwrap_or(ValueRef::Null)
    }

    /// Returns the origins of the inputs of the plugin, and of those of the other version of a comparison.
    pub(crate) fn all_inputs(&self) -> impl Iterator<Item = &StepInput> {
        self.inputs.iter().chain(self.other_inputs.iter().flatten())
    }

    /// Returns whether a request fails if this view cannot be computed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.view.on_error == OnError::Fail
    }
}

// === impl Fallback ===

impl Fallback {
    fn of(view: &DerivedView) -> Self {
        let none = BTreeMap::new();
        let defaults = if let OnError::Default(defaults) = &view.on_error { defaults } else { &none };
        let schema =
            RowSchema::new(view.features.iter().map(|feature| (Arc::clone(&feature.name), feature.value_type)));
        let mut builder = RowBuilder::new(&schema);
        builder.begin(0, None);
        // Validation ensures that each default has its feature's type, so no call here fails. If one failed
        // nevertheless, the row would be invalid, and all fallback values would be null.
        for feature in &view.features {
            let _ = builder.push_value(defaults.get(&feature.name).unwrap_or(&Value::Null));
        }
        let row = builder.finish().map(<[u8]>::to_vec).unwrap_or_default();
        Self { schema, row }
    }
}

// === impl WantedStep ===

impl<'c> WantedStep<'c> {
    /// Returns the origins of all inputs, including those of the other version of a comparison.
    fn all_inputs(&self) -> impl Iterator<Item = &WantedInput<'c>> {
        self.inputs.iter().chain(self.other_inputs.iter().flatten())
    }

    /// Returns whether the view needs neither request data nor keys.
    pub(super) fn asks_nothing(&self) -> bool {
        self.view.inputs.iter().all(|input| matches!(input.from, InputSource::Feature { .. }))
    }

    /// Returns whether this join key is an input of the view, so that its plugin may read it.
    pub(super) fn reads_key(&self, key: &str) -> bool {
        self.view.inputs.iter().any(|input| matches!(&input.from, InputSource::JoinKey(read) if **read == *key))
    }
}

// === impl Wanted ===

impl<'c> Wanted<'c> {
    /// Returns the index of a derived view in `steps`. Adds the view if it is missing.
    pub(super) fn step(&mut self, view: &'c Arc<DerivedView>) -> usize {
        let known = self.steps.iter().position(|step| step.view.name == view.name);
        known.unwrap_or_else(|| {
            self.steps.push(WantedStep { view, inputs: Vec::new(), other_inputs: None });
            self.steps.len() - 1
        })
    }

    /// Returns the origin of a stored feature that a plugin reads. Adds the view and the feature if they are missing.
    /// The view is read with its own join keys, regardless of the names that a projection uses for them.
    fn hidden(&mut self, view: &'c Arc<larder_model::model::FeatureView>, feature: &Arc<str>) -> ColumnFrom {
        let same = |wanted: &WantedView<'_>| wanted.view.name == view.name && wanted.join_key_map.is_empty();
        let read = self.views.iter().position(same).unwrap_or_else(|| {
            self.views.push(WantedView { view, join_key_map: BTreeMap::new(), features: Vec::new() });
            self.views.len() - 1
        });
        let features = &mut self.views[read].features;
        let feature = features.iter().position(|known| known == feature).unwrap_or_else(|| {
            features.push(Arc::clone(feature));
            features.len() - 1
        });
        ColumnFrom::Read { read, feature }
    }
}

// === impl Resolver ===

impl<'c> Resolver<'c> {
    /// Adds everything that the wanted derived views read, directly or indirectly. Inputs that a view declares but its
    /// plugin does not read are not looked up.
    pub(super) fn want_inputs(&self, wanted: &mut Wanted<'c>) -> Result<(), RequestError> {
        // The loop may append to `steps`.
        let mut step = 0;
        while step < wanted.steps.len() {
            let view: &'c Arc<DerivedView> = wanted.steps[step].view;
            if let Some(transform) = self.transform(view) {
                wanted.steps[step].inputs = self.want_inputs_of(wanted, view, transform)?;
                let other = self.comparison(view).map(|comparison| comparison.other(transform));
                if let Some(other) = other.filter(|other| !other.reads_subset_of(transform)) {
                    wanted.steps[step].other_inputs = Some(self.want_inputs_of(wanted, view, other)?);
                }
            }
            step += 1;
        }
        Ok(())
    }

    /// Adds everything that a version of a view's plugin reads, and returns the origins of its inputs.
    fn want_inputs_of(
        &self,
        wanted: &mut Wanted<'c>,
        view: &'c DerivedView,
        transform: &Transform,
    ) -> Result<Vec<WantedInput<'c>>, RequestError> {
        let declared = &transform.component().signature().inputs;
        let inputs = transform.inputs().iter().zip(declared).map(|(index, declared)| {
            let input = &view.inputs[*index];
            let column_type = request_type(input.value_type, declared.column_type.nullable_items);
            Ok(match &input.from {
                InputSource::Request => WantedInput::Request(&input.name, input.value_type, column_type),
                InputSource::JoinKey(key) => WantedInput::Key(key),
                InputSource::Feature { view, feature } => {
                    let from = if let Some(derived) = self.catalog.derived_view(view) {
                        let feature =
                            derived.feature_index(feature).ok_or_else(|| super::unknown_feature(feature, view, &[]))?;
                        ColumnFrom::Step { step: wanted.step(derived), feature }
                    } else {
                        let view = self.catalog.view(view).ok_or_else(|| self.unknown_view(view))?;
                        wanted.hidden(view, feature)
                    };
                    WantedInput::Feature(from)
                }
            })
        });
        inputs.collect()
    }

    fn transform(&self, view: &DerivedView) -> Option<&'c Arc<Transform>> {
        self.transforms.get_for(self.catalog.derived_index(&view.name)?, self.canaries)
    }

    fn comparison(&self, view: &DerivedView) -> Option<&'c Arc<Comparison>> {
        self.transforms.comparison(self.catalog.derived_index(&view.name)?)
    }

    /// Returns the steps. Each one follows the steps that it reads. Updates `wanted.columns` to the steps' new indexes.
    pub(super) fn steps(
        &self,
        wanted: &mut Wanted<'_>,
        entity_columns: &[EntityColumn],
        request_inputs: &[RequestInput],
    ) -> Vec<Step> {
        let order = order(&wanted.steps);
        let position = |step: usize| order.iter().position(|known| *known == step).unwrap_or(step);
        let moved = |from: ColumnFrom| match from {
            ColumnFrom::Step { step, feature } => ColumnFrom::Step { step: position(step), feature },
            read @ ColumnFrom::Read { .. } => read,
        };
        wanted.columns.iter_mut().for_each(|column| column.from = moved(column.from));
        let input = |input: &WantedInput<'_>| match *input {
            WantedInput::Feature(from) => StepInput::Feature(moved(from)),
            // `request_inputs` returns an error if one is missing, so the index is always found.
            WantedInput::Request(name, value_type, column_type) => {
                let same = |input: &RequestInput| {
                    (&input.name, input.value_type, input.column_type) == (name, value_type, column_type)
                };
                // The other version of a comparison may want null items in lists of which this version wants none.
                let similar = |input: &RequestInput| (&input.name, input.value_type) == (name, value_type);
                let inputs = || request_inputs.iter();
                StepInput::Request(inputs().position(same).or_else(|| inputs().position(similar)).unwrap_or_default())
            }
            WantedInput::Key(key) => {
                let column = entity_columns.iter().position(|column| column.name == *key);
                StepInput::Key(column, self.catalog.join_keys().get(key).copied().unwrap_or(ScalarType::String))
            }
        };
        let step = |index: &usize| {
            let wanted = &wanted.steps[*index];
            Step {
                view: Arc::clone(wanted.view),
                transform: self.transform(wanted.view).cloned(),
                inputs: wanted.inputs.iter().map(input).collect(),
                comparison: self.comparison(wanted.view).cloned(),
                other_inputs: wanted.other_inputs.as_ref().map(|inputs| inputs.iter().map(input).collect()),
                fallback: Fallback::of(wanted.view),
                counters: DerivedCounters::bind(wanted.view),
                missing: self.transforms.missing(&wanted.view.name),
            }
        };
        order.iter().map(step).collect()
    }
}

/// Returns the indexes of the steps, sorted so that each step follows the steps that it reads. This is possible because
/// the catalog has no cycles.
fn order(steps: &[WantedStep<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(steps.len());
    while order.len() < steps.len() {
        let before = order.len();
        for (index, step) in steps.iter().enumerate() {
            let has_all = |input: &WantedInput<'_>| match input {
                WantedInput::Feature(ColumnFrom::Step { step, .. }) => order.contains(step),
                _ => true,
            };
            if !order.contains(&index) && step.all_inputs().all(has_all) {
                order.push(index);
            }
        }
        if order.len() == before {
            break;
        }
    }
    order
}

/// Returns the request data that derived views need. As in Feast, the request must have all request inputs of a view,
/// even if its plugin does not read them.
pub(super) fn request_inputs(
    request: &OnlineRequest<'_>,
    wanted: &Wanted<'_>,
) -> Result<Vec<RequestInput>, RequestError> {
    let mut inputs: Vec<RequestInput> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    // A map, because a request can have thousands of columns, and views can have dozens of inputs.
    let mut columns_by_name: Option<HashMap<&str, usize>> = None;
    for (step, input) in wanted.steps.iter().flat_map(|step| step.view.request_inputs().map(move |input| (step, input)))
    {
        let columns = || request.entities.iter().enumerate().map(|(index, (name, _))| (&**name, index)).collect();
        let column = columns_by_name.get_or_insert_with(columns).get(&*input.name).copied();
        let read = step.all_inputs().find_map(|read| match read {
            WantedInput::Request(name, _, column_type) if **name == input.name => Some(*column_type),
            _ => None,
        });
        // If no plugin reads the input, no plugin can reject null items.
        let column_type = read.unwrap_or_else(|| request_type(input.value_type, true));
        match column {
            Some(request_index) => {
                let (name, value_type) = (Arc::clone(&input.name), input.value_type);
                let wanted = RequestInput { request_index, value_type, column_type, name };
                if !inputs.contains(&wanted) {
                    inputs.push(wanted);
                }
            }
            None if missing.contains(&input.name.to_string()) => {}
            None => missing.push(input.name.to_string()),
        }
    }
    if missing.is_empty() { Ok(inputs) } else { Err(RequestError::MissingRequestData { names: missing }) }
}

/// Returns the type of a column of request data.
fn request_type(value_type: ValueType, nullable_items: bool) -> ColumnType {
    let of = ColumnType::of(value_type);
    ColumnType { nullable_items: nullable_items && of.is_list, ..of }
}
