//! Converts between Arrow columns and values.
//!
//! [`Column`] converts columns of feature files, for the store and for training sets. [`feature_array`] builds the columns of
//! features, for Arrow responses and training sets.

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
