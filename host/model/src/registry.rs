//! Converts definitions from files and from Feast's registry to a valid [`Catalog`].
//!
//! [`Definitions`] are the raw form. They may contain errors, and have the positions of their names in the files. Both
//! YAML files and a [`FeastRegistry`] are read into [`Definitions`], so that all later steps are the same. [`validate`]
//! converts [`Definitions`] to a [`Catalog`], or reports all errors.

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
    feast::{FeastOptions, FeastRegistry, FeastValues, InvalidRegistry, UnknownFields},
    validate::{FEATURES_MAX, NAME_BYTES_MAX, Validated, is_name, validate, validate_each},
    write::to_yaml,
};
