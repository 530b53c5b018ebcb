//! The catalog: all served definitions, validated and immutable, with lookup by name.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use crate::{
    codec::KeyVersion,
    model::{DerivedView, Entity, FeatureService, FeatureView, ScalarType},
    yaml::Place,
};

/// The served definitions of a project, as [`super::validate()`] returns them. The definitions are consistent: every
/// name that a definition mentions is defined, and no derived view depends on itself. (The catalog that
/// [`super::Validated::sound`] returns may be inconsistent.) Entities, views and services are sorted by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    pub(super) project: Arc<str>,
    pub(super) key_version: KeyVersion,
    pub(super) entities: Vec<Entity>,
    pub(super) views: Vec<Arc<FeatureView>>,
    pub(super) derived: Vec<Arc<DerivedView>>,
    pub(super) services: Vec<Arc<FeatureService>>,
    pub(super) view_indices: HashMap<Arc<str>, usize>,
    pub(super) join_keys: BTreeMap<Arc<str>, ScalarType>,
    pub(super) unservable_views: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) unmaterializable_views: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) unservable_services: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) places: Places,
}

/// The positions of definitions in files, for messages. Comparing catalogs ignores the positions.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Whether another system chose the names (`imported:`).
    pub(super) imported: bool,
    pub(super) views: BTreeMap<Arc<str>, ViewPlaces>,
    pub(super) services: BTreeMap<Arc<str>, Place>,
}

/// The positions of a view and its features.
#[derive(Clone, Debug)]
pub(super) struct ViewPlaces {
    pub(super) view: Place,
    /// The position of the source's path or table, if the view has a source or a `batch_source`.
    pub(super) source: Option<Place>,
    pub(super) features: BTreeMap<Arc<str>, Place>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

// === impl Catalog ===

impl Catalog {
    /// Returns the name of the project.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Returns the version of the key serialization, on which entity ids depend.
    #[must_use]
    pub fn key_version(&self) -> KeyVersion {
        self.key_version
    }

    /// Returns all entities, sorted by name.
    #[must_use]
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// Returns all feature views, sorted by name.
    #[must_use]
    pub fn views(&self) -> &[Arc<FeatureView>] {
        &self.views
    }

    /// Returns all feature services, sorted by name.
    #[must_use]
    pub fn services(&self) -> &[Arc<FeatureService>] {
        &self.services
    }

    /// Returns the feature view with this name.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Arc<FeatureView>> {
        self.view_index(name).map(|index| &self.views[index])
    }

    /// Returns the index in [`Catalog::views`] of the view with this name.
    #[must_use]
    pub fn view_index(&self, name: &str) -> Option<usize> {
        self.view_indices.get(name).copied()
    }

    /// Returns all derived views, sorted by name.
    #[must_use]
    pub fn derived_views(&self) -> &[Arc<DerivedView>] {
        &self.derived
    }

    /// Returns the derived view with this name.
    #[must_use]
    pub fn derived_view(&self, name: &str) -> Option<&Arc<DerivedView>> {
        self.derived_index(name).map(|index| &self.derived[index])
    }

    /// Returns the index in [`Catalog::derived_views`] of the derived view with this name.
    #[must_use]
    pub fn derived_index(&self, name: &str) -> Option<usize> {
        self.derived.binary_search_by(|view| (*view.name).cmp(name)).ok()
    }

    /// Returns the feature service with this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<FeatureService>> {
        let index = self.services.binary_search_by(|service| (*service.name).cmp(name)).ok()?;
        self.services.get(index)
    }

    /// Returns the entity with this name.
    #[must_use]
    pub fn entity(&self, name: &str) -> Option<&Entity> {
        let index = self.entities.binary_search_by(|entity| (*entity.name).cmp(name)).ok()?;
        self.entities.get(index)
    }

    /// Returns the names of the imported views that cannot be served, each with the reason.
    #[must_use]
    pub fn unservable_views(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.unservable_views
    }

    /// Returns the names of the served views that Larder cannot materialize from files, each with the reason. For these
    /// views, Larder serves rows that were pushed, or that Feast wrote to its online store.
    #[must_use]
    pub fn unmaterializable_views(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.unmaterializable_views
    }

    /// Returns the names of the imported services that cannot be served, each with the reason.
    #[must_use]
    pub fn unservable_services(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.unservable_services
    }

    /// Returns the position of a feature of a feature view. If `feature` is `None` or unknown, returns the position of
    /// the view. Returns `None` if there is no such view.
    #[must_use]
    pub fn place_of_view(&self, view: &str, feature: Option<&str>) -> Option<&Place> {
        let places = self.places.views.get(view)?;
        Some(feature.and_then(|feature| places.features.get(feature)).unwrap_or(&places.view))
    }

    /// Returns the position of a view's source or `batch_source`, or of the view if it has neither. Returns `None` if
    /// there is no such view.
    #[must_use]
    pub fn place_of_source(&self, view: &str) -> Option<&Place> {
        let places = self.places.views.get(view)?;
        Some(places.source.as_ref().unwrap_or(&places.view))
    }

    /// Returns whether the definitions come from another system, which chose the names.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        self.places.imported
    }

    /// Returns the position of a feature service.
    #[must_use]
    pub fn place_of_service(&self, service: &str) -> Option<&Place> {
        self.places.services.get(service)
    }

    /// Returns the names of the join keys of all entities, each with its type.
    #[must_use]
    pub fn join_keys(&self) -> &BTreeMap<Arc<str>, ScalarType> {
        &self.join_keys
    }
}
