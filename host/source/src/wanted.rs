//! The columns that a view needs from its source, and their names in the source.

use std::sync::Arc;

use larder_model::model::{FeatureView, FileSource, Micros, ScalarType, ValueType};

use super::RowGroupFilter;

/// The columns of a view's rows, and the row groups of its files.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The column of event times. The files of a static table do not have this column; its values are
    /// [`Wanted::as_of`].
    pub event_time: WantedColumn,
    /// For a static table, the event time of its rows: the time at which the read begins, or 0 before
    /// [`Wanted::read_at`] sets it.
    pub as_of: Option<Micros>,
    /// The column of creation times, if there is one.
    pub created: Option<WantedColumn>,
    /// The columns of the key, in the order of the view's join keys. Empty for a view without entities.
    pub keys: Vec<WantedColumn>,
    /// The columns of the features, in the view's order.
    pub features: Vec<WantedColumn>,
    /// The row groups to read; `None` to read all of them.
    pub row_groups: Option<RowGroupFilter>,
}

/// A column that a view needs from its source.
#[derive(Clone, Debug)]
pub struct WantedColumn {
    /// Its name in the definitions.
    pub name: Arc<str>,
    /// Its name in the source.
    pub column: Arc<str>,
    /// The type that its values are converted to.
    pub value_type: ValueType,
}

/// The name of a static table's event time column.
const EVENT_TIME: &str = "event_timestamp";

// === impl Wanted ===

impl Wanted {
    /// Returns the columns that a view needs from its source.
    #[must_use]
    pub fn of(view: &FeatureView, source: &FileSource) -> Self {
        let wanted = |name: &str, value_type| WantedColumn::new(name, value_type, source);
        let time = ValueType::Scalar(ScalarType::UnixTimestamp);
        let keys = if view.is_entityless() { &[] } else { view.join_keys.as_slice() };
        Self {
            event_time: source.timestamp_field.as_deref().map_or_else(
                || WantedColumn { name: EVENT_TIME.into(), column: "".into(), value_type: time },
                |name| wanted(name, time),
            ),
            as_of: source.timestamp_field.is_none().then_some(0),
            created: source.created_timestamp_column.as_deref().map(|name| wanted(name, time)),
            keys: keys.iter().map(|key| wanted(&key.name, ValueType::Scalar(key.value_type))).collect(),
            features: view.features.iter().map(|feature| wanted(&feature.name, feature.value_type)).collect(),
            row_groups: None,
        }
    }

    /// Returns whether rows have no event times of their own.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.as_of.is_some()
    }

    /// Returns the same columns, with `now` as the event time of the rows if the table is static.
    #[must_use]
    pub fn read_at(&self, now: Micros) -> Self {
        Self { as_of: self.as_of.map(|_| now), ..self.clone() }
    }

    /// Returns the column whose statistics are needed to choose row groups; `None` if all row groups are read.
    #[must_use]
    pub(super) fn statistics_of(&self) -> Option<&str> {
        self.row_groups.as_ref().map(|_| &*self.event_time.column)
    }

    /// Returns whether every file must have the column at this index of [`Wanted::columns`]: keys, and the event time
    /// unless the table is static.
    #[must_use]
    pub fn is_required(&self, index: usize) -> bool {
        let created = usize::from(self.created.is_some());
        (index == 0 && !self.is_static()) || (1 + created..1 + created + self.keys.len()).contains(&index)
    }

    /// Returns all columns in this order: event time, created time, keys, features.
    pub fn columns(&self) -> impl Iterator<Item = &WantedColumn> {
        std::iter::once(&self.event_time).chain(&self.created).chain(&self.keys).chain(&self.features)
    }
}

// === impl WantedColumn ===

impl WantedColumn {
    /// Finds the source's column for a name in the definitions. A field mapping maps columns to names, so it is applied
    /// in reverse. As in Feast, it also applies to time columns.
    fn new(name: &str, value_type: ValueType, source: &FileSource) -> Self {
        let mapped = source.field_mapping.iter().find(|(_, target)| *target == name);
        let column = mapped.map_or(name, |(column, _)| column);
        Self { name: name.into(), column: column.into(), value_type }
    }
}
