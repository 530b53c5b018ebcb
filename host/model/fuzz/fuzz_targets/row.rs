//! Checks that arbitrary bytes as a row of any schema result in an error or in values, and never in a panic.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use larder_model::{ codec::{FORMAT_VERSION, RowHeader, RowSchema, RowView}, model::ValueType, };

const TYPES: [&str; 12] = [
    "Bool", "Int32", "Int64", "Float32", "Float64", "String", "Array(Bool)", "Array(Int32)", "Array(Float64)",
    "Array(String)", "Set(Bytes)", "Map",
];

// The first byte is the number of fields, and the next bytes are their types. All remaining bytes are the row.
fuzz_target!(|data: &[u8]| {
    let Some((&count, data)) = data.split_first() else { return };
    let Some((types, row)) = data.split_at_checked(usize::from(count % 16)) else { return };
    let field = |(i, byte): (usize, &u8)| {
        let name = TYPES[usize::from(*byte) % TYPES.len()];
        name.parse::<ValueType>().ok().map(|value_type| (Arc::from(format!("f{i}")), value_type))
    };
    let schema = RowSchema::new(types.iter().enumerate().filter_map(field));
    let _ = RowHeader::read(row);
    let mut row = row.to_vec();
    if let Some(start) = row.get_mut(..8) {
        start[0] = FORMAT_VERSION;
        start[4..].copy_from_slice(&schema.fingerprint().0.to_le_bytes());
    }
    if let Ok(view) = RowView::new(&schema, &row) {
        for i in 0..=schema.len() {
            let _ = view.get(i).map(|value| value.to_value());
        }
    }
});
