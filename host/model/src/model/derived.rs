//! Derived views: features that are computed on request.

use std::{collections::BTreeMap, sync::Arc};

use super::{Feature, Tags, Value, ValueType};

/// Features that a plugin computes from other features and from request data (Feast: an on-demand feature view).
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedView {
    /// The view's name, unique among all views of the project.
    pub name: Arc<str>,
    /// The name of the plugin that computes the features.
    pub plugin: Arc<str>,
    /// The inputs that the plugin can read.
    pub inputs: Vec<DerivedInput>,
    /// The features that the plugin computes, in declared order.
    pub features: Vec<Feature>,
    /// The configuration of the plugin, as JSON; `null` by default.
    pub config: Arc<str>,
    /// What happens if the plugin fails.
    pub on_error: OnError,
    /// A description for users.
    pub description: String,
    /// User-defined tags.
    pub tags: Tags,
}

/// An input of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedInput {
    /// The name by which the plugin reads the input, unique in the view.
    pub name: Arc<str>,
    /// The type of the input: a scalar, a list or a set.
    pub value_type: ValueType,
    /// The source of the input.
    pub from: InputSource,
}

/// The source of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// A feature of a stored view, or of a derived view that does not depend on the view of this input.
    Feature {
        /// The name of the view.
        view: Arc<str>,
        /// The name of the view's feature.
        feature: Arc<str>,
    },
    /// A column of the request's entities (Feast: a request source).
    Request,
    /// The join key with this name.
    JoinKey(Arc<str>),
}

/// What happens if a plugin fails. Unless the request fails, the status of the features reports the failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OnError {
    /// The features are null.
    #[default]
    Null,
    /// The features get these values, by feature name. A feature without a value here is null.
    Default(BTreeMap<Arc<str>, Value>),
    /// The request fails.
    Fail,
}

// === impl DerivedView ===

impl DerivedView {
    /// Returns the index of the feature with this name in [`DerivedView::features`].
    #[must_use]
    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| &*feature.name == name)
    }

    /// Returns the index of the input with this name in [`DerivedView::inputs`].
    #[must_use]
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| &*input.name == name)
    }

    /// Returns the inputs that the caller sends, in declared order.
    pub fn request_inputs(&self) -> impl Iterator<Item = &DerivedInput> {
        self.inputs.iter().filter(|input| input.from == InputSource::Request)
    }
}
