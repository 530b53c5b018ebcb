//! Definitions, as people and other registries write them, to a [`Catalog`] that is always valid.
//!
//! [`Definitions`] is the raw form: everything may be wrong in it, and every part knows where it was written. YAML
//! files are read into it here; other registries will be imported into it, so that all that comes after is one path.
//! [`validate`] turns it into a [`Catalog`], or into a list of all mistakes.

mod catalog;
mod definition;
mod validate;

pub use self::{
    catalog::Catalog,
    definition::{
        Definitions, DerivedDefinition, EntityDefinition, FeatureDefinition, InputDefinition, InputFrom,
        OnErrorDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, Unread, ViewDefinition,
    },
    validate::{FEATURES_MAX, NAME_CHARS_MAX, validate},
};
