//! A request, as every front door hands it in.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hash, Hasher},
};

use larder_model::codec::Cell;

/// Features for entities: Feast's `GetOnlineFeaturesRequest`.
#[derive(Clone, Debug, PartialEq)]
pub struct OnlineRequest<'a> {
    /// What is asked for.
    pub selection: Selection<'a>,
    /// For whom: columns of equal length, in the caller's order.
    pub entities: Vec<(Cow<'a, str>, Vec<EntityValue<'a>>)>,
    /// Whether answers are named `view__feature`.
    pub full_feature_names: bool,
    /// Whether the answer lists the views that took part.
    pub view_metadata: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection<'a> {
    /// A feature service, by name.
    Service(Cow<'a, str>),
    /// References, `view:feature` each.
    Features(Vec<Cow<'a, str>>),
}

/// One value of an entity column, before it is brought to the key's type.
#[derive(Clone, Debug, PartialEq)]
pub enum EntityValue<'a> {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// An integer beyond `i64`, in decimal digits.
    Large(Box<str>),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A list, which no key can be, and a plugin's input can.
    List(Vec<EntityValue<'a>>),
    /// A mapping, which nothing can be.
    Nested,
}

/// What a plan depends on: everything of a request but its values.
#[derive(Debug)]
pub(super) struct Shape<'r>(pub(super) &'r OnlineRequest<'r>);

/// A shape that owns its words, to be kept.
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
    /// What it is, in a few words, for messages.
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
            // JSON does not have the last three.
            Cell::Map(_) | Cell::Bytes(_) | Cell::Instant(_) | Cell::Zoned(_) => Self::Nested,
        }
    }
}

// === impl Shape ===

impl Shape<'_> {
    /// A hash that tells shapes apart well enough to look for them; equality decides.
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

    /// The total length of its names in bytes.
    pub(super) fn bytes(&self) -> usize {
        let names: usize = match &self.0.selection {
            Selection::Service(name) => name.len(),
            Selection::Features(features) => features.iter().map(|name| name.len()).sum(),
        };
        names + self.0.entities.iter().map(|(name, _)| name.len()).sum::<usize>()
    }

    /// The number of its names.
    pub(super) fn names(&self) -> usize {
        let features = if let Selection::Features(features) = &self.0.selection { features.len() } else { 1 };
        features + self.0.entities.len()
    }

    pub(super) fn is(&self, owned: &OwnedShape) -> bool {
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
