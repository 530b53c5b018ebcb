//! Byte formats: entity keys and ids as Feast writes them, the row format of the online store, and conversions to and
//! from Feast's values.

mod cell;
mod coerce;
mod conversion_error;
mod convert;
mod entity_key;
mod feast;
pub mod json;
mod key_part;
mod murmur3;
pub mod python;
mod row;
mod row_layout;
mod row_text;
mod schema;
mod tree;
mod zone;

pub(crate) use self::schema::EXPIRY_FIELD;
pub use self::{
    cell::{Cell, may_be_integer},
    coerce::{is_text_of, key_value, null_item, set, single, stored_set, uuid_text},
    conversion_error::ConversionError,
    convert::{Conversion, Retyped, retyped},
    entity_key::{KeyEncoder, KeyValue, KeyVersion},
    feast::{push_feast_value, to_feast_value},
    key_part::{EntityKey, KeyPart},
    murmur3::murmur3_x64_128,
    row::{FORMAT_VERSION, ROW_BYTES_MAX, RowBuilder, RowError, RowHeader, RowRank, RowView},
    row_text::RowText,
    schema::{FIELDS_MAX, Fingerprint, RowSchema},
};
