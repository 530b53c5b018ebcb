//! The columns of a view's rows.

use arrow::array::RecordBatch;
use larder_columns::{Column, Instants};
use larder_model::{
    codec::{KeyEncoder, KeyValue, RowBuilder, RowError, RowSchema},
    model::{EntityId, Feature, FeatureView, JoinKey, ValueRef},
};

use super::SourceError;

/// The decoded columns of a batch of a view's rows.
#[derive(Debug)]
pub struct ViewColumns {
    /// The event times.
    pub event_time: Instants,
    /// The created times, if the view's files have them.
    pub created: Option<Instants>,
    /// The columns of the key, in the order of the view's join keys. Empty for a view without entities.
    pub keys: Vec<Column>,
    /// The columns of the features.
    pub features: Vec<Column>,
}

// === impl ViewColumns ===

impl ViewColumns {
    /// Decodes the columns of a batch, which are in the order of [`Wanted::columns`]. `features` are the view's features
    /// that the batch has, in its order.
    ///
    /// [`Wanted::columns`]: super::Wanted::columns
    ///
    /// # Errors
    /// [`SourceError::Column`], if a column of times has another type, or if the batch has too few columns.
    pub fn new(
        view: &FeatureView,
        features: &[Feature],
        rows: &RecordBatch,
        origin: &str,
    ) -> Result<Self, SourceError> {
        let keys = if view.is_entityless() { &[] } else { view.join_keys.as_slice() };
        Self::of(keys, features, rows, origin)
    }

    /// Decodes the columns of a batch without keys.
    ///
    /// # Errors
    /// As [`ViewColumns::new`].
    pub fn without_keys(features: &[Feature], rows: &RecordBatch, origin: &str) -> Result<Self, SourceError> {
        Self::of(&[], features, rows, origin)
    }

    fn of(keys: &[JoinKey], features: &[Feature], rows: &RecordBatch, origin: &str) -> Result<Self, SourceError> {
        let mut columns = rows.columns().iter().enumerate();
        let mut next = || {
            let missing = || SourceError::Column {
                path: origin.to_owned(),
                column: String::new(),
                why: "the batch has too few columns".to_owned(),
            };
            columns.next().ok_or_else(missing)
        };
        let incompatible = |index: usize, why| {
            let column = rows.schema().field(index).name().clone();
            SourceError::Column { path: origin.to_owned(), column, why }
        };
        let mut instants = || {
            let (index, array) = next()?;
            Instants::new(array).map_err(|why| incompatible(index, why))
        };
        let event_time = instants()?;
        let has_created = rows.num_columns() > 1 + keys.len() + features.len();
        let created = has_created.then(instants).transpose()?;
        let keys =
            keys.iter().map(|key| Ok(Column::key(next()?.1, key.value_type))).collect::<Result<_, SourceError>>()?;
        let features = features
            .iter()
            .map(|feature| Ok(Column::feature(next()?.1, feature.value_type)))
            .collect::<Result<_, SourceError>>()?;
        Ok(Self { event_time, created, keys, features })
    }

    /// Encodes a row. A value that does not match the type of its feature is null: see [`Column::conversion_error`].
    /// `builder` builds rows of the view's schema, and the columns have all of its features.
    ///
    /// # Errors
    /// [`RowError`], if the row is too long.
    pub fn encode<'b>(
        &self,
        row: usize,
        schema: &RowSchema,
        builder: &'b mut RowBuilder<'_>,
    ) -> Result<&'b [u8], RowError> {
        let created = self.created.as_ref();
        let event_time = self.event_time.micros(row).unwrap_or_default();
        builder.begin(event_time, created.and_then(|created| created.micros(row)));
        builder.set_nanos(self.event_time.nanos(row), created.map_or(0, |created| created.nanos(row)));
        self.encode_features(row, schema, builder)
    }

    /// Encodes the features of a row whose times the caller has passed to `builder`. Otherwise as [`ViewColumns::encode`].
    ///
    /// # Errors
    /// [`RowError`], if the row is too long.
    pub fn encode_features<'b>(
        &self,
        row: usize,
        schema: &RowSchema,
        builder: &'b mut RowBuilder<'_>,
    ) -> Result<&'b [u8], RowError> {
        self.features.iter().try_for_each(|column| column.push(row, builder))?;
        if schema.expiry().is_some() {
            // Rows of files have no expiry.
            builder.push(ValueRef::Null)?;
        }
        builder.finish()
    }

    /// Returns the ID of a row's entity; `None` if a part of its key is null or does not match the key's type. `key` is a
    /// buffer.
    #[must_use]
    pub fn id(&self, encoder: &KeyEncoder, row: usize, key: &mut Vec<u8>) -> Option<EntityId> {
        encoder.begin(key);
        if self.keys.is_empty() {
            // A view without entities has one row, under the empty dummy key.
            KeyEncoder::push(key, KeyValue::String(""));
        }
        self.keys.iter().all(|column| column.push_key(row, key)).then(|| KeyEncoder::id(key))
    }
}
