//! Converts rows that were stored before a feature's type changed.
//!
//! When a plan is resolved, each read gets one [`RowConversion`] for each earlier schema in which one of its features
//! has another type. A lookup that finds a row of such a schema converts it to a [`ConvertedRow`]. Rows of the current
//! schema are not converted.

use std::sync::Arc;

use larder_model::{
    codec::{Conversion, RowBuilder, RowSchema, RowView},
    model::{Feature, Micros, Value, ValueRef},
};

/// The conversion of rows of an earlier schema, for one read.
#[derive(Debug)]
pub struct RowConversion {
    /// The schema of a converted row. It has the features of the read that stored rows have and whose stored type can
    /// be converted, each with its current type.
    schema: RowSchema,
    /// For each field of `schema`, the field of the stored row and the conversion of its values.
    fields: Vec<(usize, Conversion)>,
    /// For each feature of the read, the index of its field in `schema`, if it has a field.
    positions: Vec<Option<usize>>,
}

/// A row after its conversion.
#[derive(Debug)]
pub(super) struct ConvertedRow {
    /// A row of [`RowConversion::schema`].
    row: Box<[u8]>,
    /// The indexes of the fields of [`RowConversion::schema`] whose values could not be converted, in ascending order.
    pub(super) lost: Vec<usize>,
    pub(super) event_time: Micros,
    pub(super) expired: bool,
    /// The index of the stored row's schema among the schemas of the read.
    pub(super) schema: usize,
}

// === impl RowConversion ===

impl RowConversion {
    /// Returns the conversion of rows of a stored schema. Returns `None` if each feature has its current type or is
    /// missing: such rows need no conversion.
    pub(super) fn new<'f>(stored: &RowSchema, features: impl Iterator<Item = Option<&'f Feature>>) -> Option<Self> {
        let (mut named, mut fields, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_needed = false;
        for feature in features {
            let found = feature.and_then(|feature| {
                let (field, stored) = stored.find(&feature.name)?;
                is_needed |= stored != feature.value_type;
                Some((field, Conversion::between(stored, feature.value_type)?, feature))
            });
            positions.push(found.map(|(field, conversion, feature)| {
                named.push((Arc::clone(&feature.name), feature.value_type));
                fields.push((field, conversion));
                fields.len() - 1
            }));
        }
        is_needed.then(|| Self { schema: RowSchema::new(named), fields, positions })
    }

    /// Converts a row, and returns it with the indexes of its lost fields. A field is lost if its value cannot be
    /// converted or is damaged. Returns `None` if the row cannot be read or encoded.
    pub(super) fn convert(&self, stored: &RowSchema, row: &[u8]) -> Option<(Box<[u8]>, Vec<usize>)> {
        let view = RowView::new(stored, row).ok()?;
        let mut lost = Vec::new();
        let mut builder = RowBuilder::new(&self.schema);
        builder.begin(view.event_time(), None);
        for (index, (field, conversion)) in self.fields.iter().enumerate() {
            let value = view.get(*field).ok().and_then(|value| conversion.apply(value));
            if value.is_none() {
                lost.push(index);
            }
            builder.push_value(&value.unwrap_or(Value::Null)).ok()?;
        }
        Some((builder.finish().ok()?.into(), lost))
    }

    /// Returns the value of a feature of the read. Returns `None` if the stored row does not have the feature, or if
    /// the value or its type cannot be converted.
    pub(super) fn value<'a>(&'a self, converted: &'a ConvertedRow, feature: usize) -> Option<ValueRef<'a>> {
        let field = self.positions[feature].filter(|field| converted.lost.binary_search(field).is_err())?;
        RowView::new(&self.schema, &converted.row).and_then(|view| view.get(field)).ok()
    }
}

// === impl ConvertedRow ===

impl ConvertedRow {
    /// Returns the memory of the row in bytes.
    pub(super) fn memory(&self) -> usize {
        self.row.len() + self.lost.len() * size_of::<usize>()
    }

    pub(super) fn new((row, lost): (Box<[u8]>, Vec<usize>), schema: usize, event_time: Micros, expired: bool) -> Self {
        Self { row, lost, event_time, expired, schema }
    }
}
