//! Converts between Arrow columns and values.
//!
//! [`Column`] converts columns of feature files, for the store and for training sets. [`feature_array`] builds the columns of
//! features, for Arrow responses and training sets. [`row_sizes()`] returns the sizes of rows, by which batches are divided.

mod array;
mod arrow_cell;
mod column;
mod row_sizes;
mod rows;

pub use self::{
    array::{ArrayError, feature_array, instants, list_array, scalar_array},
    arrow_cell::{cell, unpacked},
    column::{Column, ColumnError, Instants},
    row_sizes::{fixed_row_size, row_sizes},
    rows::decode_rows,
};
