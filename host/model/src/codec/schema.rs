//! The fields of a row and their offsets.

use std::sync::Arc;

use super::{murmur3_x64_128, row_layout::HEADER_BYTES};
use crate::model::{Feature, FeatureView, Physical, ScalarType, ValueType};

/// Identifies a schema: 32 bits of a hash of the names and types of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u32);

/// The fields of a feature view's rows, with their offsets.
///
/// A schema is built in advance, not for each row. Its precomputed offsets let a reader load any field without reading
/// other fields first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSchema {
    fields: Vec<Field>,
    fingerprint: Fingerprint,
    /// The offset in the row at which the slots end and the variable part begins.
    var_at: usize,
}

/// One field, with the offset of its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) value_type: ValueType,
    pub(super) physical: Physical,
    /// The offset of the slot in the row.
    pub(super) at: usize,
    /// For a variable field, the offset of the slot of the previous variable field. `None` for the first variable field
    /// and for all other fields.
    pub(super) previous_var_at: Option<usize>,
}

/// The name of the field with the expiration time of a row. Only views with [`FeatureView::has_expiry`] have this
/// field.
pub(crate) const EXPIRY_FIELD: &str = "(expires)";

/// The maximum number of fields of a row. The header stores the number of fields in 16 bits.
pub const FIELDS_MAX: usize = u16::MAX as usize;

// === impl RowSchema ===

impl RowSchema {
    /// Returns the schema of rows with these features, in this order.
    #[must_use]
    pub fn of(features: &[Feature]) -> Self {
        Self::new(features.iter().map(|feature| (Arc::clone(&feature.name), feature.value_type)))
    }

    /// Returns the schema of a view's rows: the view's features, followed by the expiry field if
    /// [`FeatureView::has_expiry`] returns true.
    #[must_use]
    pub fn of_view(view: &FeatureView) -> Self {
        let features = view.features.iter().map(|feature| (Arc::clone(&feature.name), feature.value_type));
        let expiry = view.has_expiry().then(|| (EXPIRY_FIELD.into(), ValueType::Scalar(ScalarType::UnixTimestamp)));
        Self::new(features.chain(expiry))
    }

    /// Returns the index of the expiry field, if rows of this schema have one.
    #[must_use]
    pub fn expiry(&self) -> Option<usize> {
        let last = self.fields.len().checked_sub(1)?;
        (&*self.fields[last].name == EXPIRY_FIELD).then_some(last)
    }

    /// Returns the schema of rows with these fields, in this order. With more than [`FIELDS_MAX`] fields, no row can be
    /// encoded. The views of a catalog have far fewer.
    #[must_use]
    pub fn new(fields: impl IntoIterator<Item = (Arc<str>, ValueType)>) -> Self {
        let mut described = String::new();
        let named: Vec<_> = fields.into_iter().collect();
        for (name, value_type) in &named {
            described.push_str(name);
            described.push('\0');
            described.push_str(&value_type.to_string());
            described.push('\n');
        }
        let [a, b, c, d, ..] = murmur3_x64_128(described.as_bytes());

        // The slots begin after the null bitmap.
        let mut at = HEADER_BYTES + named.len().div_ceil(8);
        let mut previous_var_at = None;
        let fields = named
            .into_iter()
            .map(|(name, value_type)| {
                let physical = value_type.physical();
                let mut field = Field { name, value_type, physical, at, previous_var_at: None };
                if matches!(physical, Physical::Bytes | Physical::List(_)) {
                    field.previous_var_at = previous_var_at.replace(at);
                }
                at += slot_bytes(physical);
                field
            })
            .collect();
        Self { fields, fingerprint: Fingerprint(u32::from_le_bytes([a, b, c, d])), var_at: at }
    }

    /// Returns the fingerprint of this schema.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Returns the fields' names and types, in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, ValueType)> {
        self.fields.iter().map(|field| (&field.name, field.value_type))
    }

    /// Returns the index of the field with this name and type, if there is one.
    #[must_use]
    pub fn position(&self, name: &str, value_type: ValueType) -> Option<usize> {
        self.fields.iter().position(|field| &*field.name == name && field.value_type == value_type)
    }

    /// Returns the index and type of the field with this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, ValueType)> {
        let index = self.fields.iter().position(|field| &*field.name == name)?;
        Some((index, self.fields[index].value_type))
    }

    pub(super) fn field(&self, index: usize) -> Option<&Field> {
        self.fields.get(index)
    }

    pub(super) fn var_at(&self) -> usize {
        self.var_at
    }
}

/// Returns the size of a field's slot in bytes. A variable field's slot contains the end of its bytes in the variable
/// part.
fn slot_bytes(physical: Physical) -> usize {
    match physical {
        Physical::Bool => 1,
        Physical::Int32 | Physical::Float32 | Physical::Bytes | Physical::List(_) => 4,
        Physical::Int64 | Physical::Float64 => 8,
    }
}
