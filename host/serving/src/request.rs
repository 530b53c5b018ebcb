//! A lookup request, the same for all protocols.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hash, Hasher},
};

use larder_model::codec::Cell;

/// A request for features of entities: Feast's `GetOnlineFeaturesRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct OnlineRequest<'a> {
    /// The requested features.
    pub selection: Selection<'a>,
    /// The entity columns and request data, in the caller's order. All columns must have the same length, which is
    /// checked later.
    pub entities: Vec<(Cow<'a, str>, Vec<EntityValue<'a>>)>,
    /// Whether feature columns are named `view__feature`.
    pub full_feature_names: bool,
    /// Whether the response lists the requested views.
    pub view_metadata: bool,
}

/// The requested features.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection<'a> {
    /// A feature service, by name.
    Service(Cow<'a, str>),
    /// Feature references, each `view:feature`.
    Features(Vec<Cow<'a, str>>),
}

/// One value of an entity column, before it is coerced to the key's type.
#[derive(Clone, Debug, PartialEq)]
pub enum EntityValue<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond `i64`, in decimal digits.
    Large(Box<str>),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A list. It cannot be a key, but it can be an input of a plugin.
    List(Vec<EntityValue<'a>>),
    /// A mapping. It can be neither a key nor an input of a plugin.
    Nested,
}

/// The shape of a request: everything except its values. A plan depends only on the shape and the definitions.
#[derive(Debug)]
pub(super) struct Shape<'r>(pub(super) &'r OnlineRequest<'r>);

/// A shape that owns its strings, for the cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnedShape {
    service: Option<String>,
    features: Vec<String>,
    columns: Vec<String>,
    full_feature_names: bool,
    view_metadata: bool,
}

// === impl EntityValue ===

impl EntityValue<'_> {
    /// Returns a short description of the value, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Large(digits) => digits.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::Text(text) => {
                let start: String = text.chars().take(40).collect();
                let more = if start.len() < text.len() { "…" } else { "" };
                format!("'{start}{more}'")
            }
            Self::List(_) => "a list".to_owned(),
            Self::Nested => "a mapping".to_owned(),
        }
    }
}

impl EntityValue<'_> {
    /// Returns a copy that owns its text.
    pub(super) fn to_static(&self) -> EntityValue<'static> {
        match self {
            Self::Null => EntityValue::Null,
            Self::Bool(value) => EntityValue::Bool(*value),
            Self::Int(value) => EntityValue::Int(*value),
            Self::Large(digits) => EntityValue::Large(digits.clone()),
            Self::Float(value) => EntityValue::Float(*value),
            Self::Text(text) => EntityValue::Text(Cow::Owned(text.to_string())),
            Self::List(items) => EntityValue::List(items.iter().map(EntityValue::to_static).collect()),
            Self::Nested => EntityValue::Nested,
        }
    }

    /// Returns the approximate memory of the value in bytes.
    pub(super) fn memory(&self) -> usize {
        let own = size_of::<Self>();
        match self {
            Self::Large(text) => own + text.len(),
            Self::Text(text) => own + text.len(),
            Self::List(items) => own + items.iter().map(Self::memory).sum::<usize>(),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Nested => own,
        }
    }
}

impl From<Cell> for EntityValue<'_> {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Bool(value) => Self::Bool(value),
            Cell::Int(value) => Self::Int(value),
            Cell::Number(digits) => Self::Large(digits.into()),
            Cell::Single(value) => Self::Float(value.into()),
            Cell::Float(value) => Self::Float(value),
            Cell::Text(text) => Self::Text(text.into()),
            Cell::List(items) => Self::List(items.into_iter().map(Self::from).collect()),
            // These cells are read from JSON, which has no bytes, instants or time zones.
            Cell::Map(_) | Cell::Bytes(_) | Cell::Instant(_) | Cell::Zoned(_) => Self::Nested,
        }
    }
}

// === impl Shape ===

impl Shape<'_> {
    /// Returns a hash for the plan cache. The cache also compares shapes, because different shapes can have the same
    /// hash.
    pub(super) fn hash(&self, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        match &self.0.selection {
            Selection::Service(name) => name.hash(&mut state),
            Selection::Features(features) => {
                state.write_usize(features.len());
                features.iter().for_each(|feature| feature.hash(&mut state));
            }
        }
        self.0.entities.iter().for_each(|(name, _)| name.hash(&mut state));
        (self.0.full_feature_names, self.0.view_metadata).hash(&mut state);
        state.finish()
    }

    /// Returns the total length of the names in the shape, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let names: usize = match &self.0.selection {
            Selection::Service(name) => name.len(),
            Selection::Features(features) => features.iter().map(|name| name.len()).sum(),
        };
        names + self.0.entities.iter().map(|(name, _)| name.len()).sum::<usize>()
    }

    /// Returns the number of names in the shape.
    pub(super) fn names(&self) -> usize {
        let features = if let Selection::Features(features) = &self.0.selection { features.len() } else { 1 };
        features + self.0.entities.len()
    }

    /// Returns whether the shapes are equal.
    pub(super) fn matches(&self, owned: &OwnedShape) -> bool {
        let selection = match &self.0.selection {
            Selection::Service(name) => owned.service.as_deref() == Some(name),
            Selection::Features(features) => owned.service.is_none() && *features == owned.features,
        };
        selection
            && self.0.full_feature_names == owned.full_feature_names
            && self.0.view_metadata == owned.view_metadata
            && self.0.entities.len() == owned.columns.len()
            && self.0.entities.iter().zip(&owned.columns).all(|((name, _), column)| name == column)
    }

    pub(super) fn to_owned(&self) -> OwnedShape {
        let (service, features) = match &self.0.selection {
            Selection::Service(name) => (Some(name.to_string()), Vec::new()),
            Selection::Features(features) => (None, features.iter().map(ToString::to_string).collect()),
        };
        OwnedShape {
            service,
            features,
            columns: self.0.entities.iter().map(|(name, _)| name.to_string()).collect(),
            full_feature_names: self.0.full_feature_names,
            view_metadata: self.0.view_metadata,
        }
    }
}
