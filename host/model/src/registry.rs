//! Definitions, as people and other registries write them, to a [`Catalog`] that is always valid.
//!
//! [`Definitions`] is the raw form: everything may be wrong in it, and every part knows where it was written. YAML
//! files are read into it here, and so is a [`FeastRegistry`], so that all that comes after is one path.
//! [`validate`] turns it into a [`Catalog`], or into a list of all mistakes.

mod catalog;
mod definition;
mod feast;
mod validate;
mod write;

pub use self::{
    catalog::Catalog,
    definition::{
        Definitions, DerivedDefinition, EntityDefinition, FeatureDefinition, FilesDefinition, InputDefinition,
        InputFrom, OnErrorDefinition, ProjectionDefinition, ServiceDefinition, SourceDefinition, SourceFrom, Unread,
        Unservable, ViewDefinition,
    },
    feast::{FeastOptions, FeastRegistry, FeastValues, NoRegistry, UnknownFields},
    validate::{FEATURES_MAX, NAME_BYTES_MAX, Validated, is_name, validate, validate_each},
    write::to_yaml,
};
