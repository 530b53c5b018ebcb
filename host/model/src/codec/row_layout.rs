//! The offsets in the header of a row. `row.rs` has a diagram of the header.

pub(super) const FLAGS_AT: usize = 1;
pub(super) const FIELD_COUNT_AT: usize = 2;
pub(super) const FINGERPRINT_AT: usize = FIELD_COUNT_AT + size_of::<u16>();
pub(super) const EVENT_TIME_AT: usize = FINGERPRINT_AT + size_of::<u32>();
pub(super) const CREATED_AT: usize = EVENT_TIME_AT + size_of::<i64>();
pub(super) const HEADER_BYTES: usize = CREATED_AT + size_of::<i64>();
