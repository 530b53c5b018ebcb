//! Derived views: features that are computed when they are asked for.

use std::{collections::BTreeMap, sync::Arc};

use super::{Feature, Tags, Value, ValueType};

/// Features that a plugin computes from others and from what the caller sends (Feast: an on-demand feature view).
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedView {
    /// Its name, unique among all views of the project.
    pub name: Arc<str>,
    /// The plugin that computes it, by the name that the plugin has for itself.
    pub plugin: Arc<str>,
    /// What the plugin may read, by the names that the plugin has for it.
    pub inputs: Vec<DerivedInput>,
    /// What it computes, in declared order.
    pub features: Vec<Feature>,
    /// What the plugin is configured with, as JSON; `null` where nothing is said.
    pub config: Arc<str>,
    /// What its features are when the plugin fails.
    pub on_error: OnError,
    /// What it is, for people.
    pub description: String,
    /// Free words.
    pub tags: Tags,
}

/// Something that a plugin may read.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedInput {
    /// The plugin's name for it, unique in the view.
    pub name: Arc<str>,
    /// Its type: a scalar, a list or a set.
    pub value_type: ValueType,
    /// Where it comes from.
    pub from: InputSource,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// A feature of a view: a stored one, or a derived one that does not depend on this.
    Feature {
        /// The view.
        view: Arc<str>,
        /// Its feature.
        feature: Arc<str>,
    },
    /// The caller, in a column of the request's entities (Feast: a request source).
    Request,
    /// The entity itself: a join key.
    JoinKey(Arc<str>),
}

/// What features are when their plugin fails. Their status says that it did.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OnError {
    /// Null.
    #[default]
    Null,
    /// These values, by feature; null where there is none.
    Default(BTreeMap<Arc<str>, Value>),
    /// There are none: the request fails.
    Fail,
}

// === impl DerivedView ===

impl DerivedView {
    /// The place of a feature among this view's, by name.
    #[must_use]
    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| &*feature.name == name)
    }

    /// The place of an input among this view's, by name.
    #[must_use]
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| &*input.name == name)
    }

    /// The inputs that the caller sends, in declared order.
    pub fn request_inputs(&self) -> impl Iterator<Item = &DerivedInput> {
        self.inputs.iter().filter(|input| input.from == InputSource::Request)
    }
}
