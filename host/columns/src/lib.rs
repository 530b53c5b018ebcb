//! Converts between Arrow columns and values.
//!
//! All ways from a file to a value use [`Column`], so the store and training sets have the same values. All ways from a
//! value to an Arrow column use [`feature_array`], so responses and training sets have the same types.

mod array;
mod arrow_cell;
mod column;
mod rows;

pub use self::{
    array::{ArrayError, feature_array, instants, scalar_array},
    arrow_cell::{cell, unpacked},
    column::{Column, ColumnError, Instants},
    rows::decode_rows,
};
