//! Bytes: entity keys and ids as Feast writes them, and the row format of the online store.

mod entity_key;
mod murmur3;
mod row;
mod schema;

pub use self::{
    entity_key::{KeyEncoder, KeyValue, KeyVersion},
    murmur3::murmur3_x64_128,
    row::{FORMAT_VERSION, ROW_BYTES_MAX, RowBuilder, RowError, RowHeader, RowView},
    schema::{FIELDS_MAX, Fingerprint, RowSchema},
};
