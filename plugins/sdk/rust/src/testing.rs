//! For a plugin's own tests: rows through the plugin as the host would send them.

use crate::{
    __private::types::Column,
    Context, Fault,
    input::Inputs,
    output::{Builder, Outputs},
    run::{self, Plugin},
};

/// A batch that is put together by hand.
#[derive(Debug, Default)]
pub struct Batch {
    columns: Vec<Column>,
    rows: usize,
}

impl Batch {
    /// A batch of so many rows, with no column yet.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        Self { columns: Vec::new(), rows }
    }

    /// Adds the next input's column, of values as an output has them.
    ///
    /// # Panics
    /// If there are not as many values as rows.
    #[must_use]
    pub fn column<T: crate::output::Output>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        let mut column = Builder::new(T::TYPE, self.rows);
        let mut count = 0;
        for value in values {
            value.push(&mut column);
            count += 1;
        }
        assert_eq!(count, self.rows, "a column has as many values as the batch has rows");
        self.columns.push(column.finish());
        self
    }
}

/// Runs a plugin over a batch, and reads the outputs as inputs of the type `O`, a struct of [`crate::Inputs`] with the
/// outputs' names and types. Rows that were not computed are none.
///
/// # Errors
/// The plugin's fault.
pub fn run<P: Plugin>(config: &str, context: &Context, batch: &Batch) -> Result<Vec<Column>, Fault> {
    let config = run::configure::<P>(config)?;
    run::transform::<P>(&config, context, batch.rows, &batch.columns)
}

/// Reads columns that a plugin returned as rows.
///
/// # Panics
/// If the columns are of other types.
pub fn rows<'a, O: Inputs<'a>>(columns: &'a [Column], rows: usize) -> Vec<Option<O>> {
    let readers = O::open(columns).unwrap_or_else(|fault| panic!("{fault}"));
    (0..rows).map(|row| O::read(&readers, row)).collect()
}

/// Writes rows as the columns of a batch, for a plugin that reads what another one computes.
#[must_use]
pub fn columns<T: Outputs>(rows: Vec<T>) -> Batch {
    let mut builders: Vec<Builder> = T::FIELDS.iter().map(|field| Builder::new(field.data_type, rows.len())).collect();
    let count = rows.len();
    rows.into_iter().for_each(|row| row.push(&mut builders));
    Batch { columns: builders.into_iter().map(Builder::finish).collect(), rows: count }
}
