//! The inputs of a batch: a frame of the plugin's inputs, and the reference times of its rows.

use std::{ops::Range, sync::Arc};

use larder_model::model::{Micros, ValueRef};

use super::{CallError, ColumnRef, ColumnType, ColumnWriter, FailedRow, Frame, FrameBuilder};

/// The reference times of the rows of a batch: the instants for which their features are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// One reference time for all rows. While serving, it is the time of the request.
    All(Micros),
    /// A reference time for each row. In training sets, it is the event time of the row.
    Each(Arc<[Micros]>),
}

/// The inputs of a batch.
#[derive(Clone, Debug)]
pub struct Inputs {
    frame: Frame,
    as_of: AsOf,
    time: TimeColumn,
    /// The rows that are not computed, in ascending order.
    rejected: Vec<FailedRow>,
}

/// Fills the inputs of a batch column by column, in the order of the plugin's inputs.
#[derive(Debug)]
pub struct InputsBuilder {
    frame: FrameBuilder,
    as_of: AsOf,
    time: TimeColumn,
    rejected: Vec<FailedRow>,
}

/// How a plugin gets the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeColumn {
    /// It does not read the time.
    None,
    /// The first column of the frame has the reference time of each row.
    First,
    /// It gets one reference time for all rows of a call.
    Context,
}

// === impl AsOf ===

impl AsOf {
    fn get(&self, row: usize) -> Micros {
        match self {
            Self::All(time) => *time,
            Self::Each(times) => times.get(row).copied().unwrap_or_default(),
        }
    }

    fn select(&self, rows: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::All(time) => Self::All(*time),
            Self::Each(_) => Self::Each(rows.map(|row| self.get(row)).collect()),
        }
    }
}

impl From<Micros> for AsOf {
    fn from(time: Micros) -> Self {
        Self::All(time)
    }
}

// === impl InputsBuilder ===

impl InputsBuilder {
    pub(super) fn new(types: impl Iterator<Item = ColumnType>, as_of: AsOf, time: TimeColumn, rows: usize) -> Self {
        let time_type = (time == TimeColumn::First).then_some(ColumnType::TIMESTAMP);
        let mut frame = FrameBuilder::new(time_type.into_iter().chain(types), rows);
        if time == TimeColumn::First {
            frame.column(|column| column.extend((0..rows).map(|row| ValueRef::Int64(as_of.get(row)))));
        }
        Self { frame, as_of, time, rejected: Vec::new() }
    }

    /// Returns the number of the plugin's inputs.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.frame.column_count() - usize::from(self.time == TimeColumn::First)
    }

    /// Fills the next input.
    ///
    /// # Panics
    /// If all inputs are filled.
    pub fn column<R>(&mut self, fill: impl FnOnce(&mut ColumnWriter<'_>) -> R) -> R {
        self.frame.column(fill)
    }

    /// Marks a row as failed, because it has no valid input.
    pub fn reject(&mut self, row: usize, error: CallError) {
        if let Err(index) = self.rejected.binary_search_by_key(&row, |failed| failed.row) {
            self.rejected.insert(index, FailedRow { row, error: Arc::new(error) });
        }
    }

    /// Returns the inputs. Columns that are not filled are null.
    #[must_use]
    pub fn finish(self) -> Inputs {
        Inputs { frame: self.frame.finish(), as_of: self.as_of, time: self.time, rejected: self.rejected }
    }
}

// === impl Inputs ===

impl Inputs {
    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.frame.rows()
    }

    /// Returns the approximate memory of the inputs in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let times = if let AsOf::Each(times) = &self.as_of { size_of_val(&**times) } else { 0 };
        self.frame.bytes().len() + times + self.rejected.len() * size_of::<FailedRow>()
    }

    /// Copies consecutive rows.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        self.part(self.frame.slice(rows.clone()), rows)
    }

    /// Copies the rows with these indexes, in the given order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        self.part(self.frame.select(rows), rows.iter().copied())
    }

    fn part(&self, frame: Frame, rows: impl Iterator<Item = usize> + Clone) -> Self {
        let rejected = if self.rejected.is_empty() {
            Vec::new()
        } else {
            let error = |row: usize| self.rejected.iter().find(|failed| failed.row == row);
            let rows = rows.clone().enumerate();
            rows.filter_map(|(row, of)| Some(FailedRow { row, error: Arc::clone(&error(of)?.error) })).collect()
        };
        Self { frame, as_of: self.as_of.select(rows), time: self.time, rejected }
    }

    /// Returns the columns of the plugin's inputs, without the column of reference times.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = ColumnRef<'_>> {
        self.frame.columns().skip(usize::from(self.time == TimeColumn::First))
    }

    /// Returns the reference time of a row.
    #[must_use]
    pub fn reference_time(&self, row: usize) -> Micros {
        self.as_of.get(row)
    }

    /// Returns the number of bytes that a plugin gets for some of the rows.
    #[must_use]
    pub fn bytes_of(&self, rows: Range<usize>) -> usize {
        self.frame.bytes_of(rows)
    }

    /// Returns the frame that the plugin gets.
    pub(super) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Returns the reference times of the rows.
    pub(super) fn as_of(&self) -> &AsOf {
        &self.as_of
    }

    /// Returns the reference time of the first row.
    pub(super) fn first_time(&self) -> Micros {
        self.as_of.get(0)
    }

    /// Returns the rows that are not computed.
    pub(super) fn rejected(&self) -> &[FailedRow] {
        &self.rejected
    }

    /// Returns how many of these rows, from the first one on, one call can compute. A plugin that gets one
    /// reference time for all rows of a call can compute only rows with the same reference time.
    pub(super) fn rows_of_same_time(&self, rows: Range<usize>) -> usize {
        match (&self.as_of, self.time) {
            (AsOf::Each(_), TimeColumn::Context) => {
                let first = self.as_of.get(rows.start);
                rows.take_while(|row| self.as_of.get(*row) == first).count()
            }
            _ => rows.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ColumnScalar;

    const DOUBLE: ColumnType = ColumnType::single(ColumnScalar::Float64);

    fn inputs(as_of: AsOf, time: TimeColumn) -> Inputs {
        let mut inputs = InputsBuilder::new([DOUBLE].into_iter(), as_of, time, 4);
        assert_eq!(inputs.column_count(), 1);
        inputs.column(|column| column.extend([1.0, 2.0, 3.0, 4.0].map(ValueRef::Float64)));
        inputs.reject(2, CallError::Row("bad".to_owned()));
        inputs.finish()
    }

    fn times(inputs: &Inputs) -> Vec<ValueRef<'_>> {
        (0..inputs.rows()).map(|row| inputs.frame().column(0).values().get(row)).collect()
    }

    #[test]
    fn first_column_has_the_times() {
        let each = inputs(AsOf::Each([7, 8, 9, 9].into()), TimeColumn::First);
        assert_eq!(times(&each), [7, 8, 9, 9].map(ValueRef::Int64));
        assert_eq!(times(&each.slice(1..3)), [8, 9].map(ValueRef::Int64));
        assert_eq!(times(&each.select(&[3, 0])), [9, 7].map(ValueRef::Int64));
        assert_eq!(times(&inputs(5.into(), TimeColumn::First)), [5; 4].map(ValueRef::Int64));
        assert_eq!(inputs(5.into(), TimeColumn::None).frame().column_count(), 1);
    }

    #[test]
    fn rejected_rows_move_with_the_rows() {
        let rows = |inputs: &Inputs| inputs.rejected().iter().map(|failed| failed.row).collect::<Vec<_>>();
        let all = inputs(5.into(), TimeColumn::None);
        assert_eq!(rows(&all), [2]);
        assert_eq!(rows(&all.slice(1..4)), [1]);
        assert_eq!(rows(&all.slice(0..2)), [0; 0]);
        assert_eq!(rows(&all.select(&[2, 1, 2])), [0, 2]);
    }

    #[test]
    fn call_with_one_time_has_rows_of_one_time() {
        let each = || AsOf::Each([7, 9, 9, 9].into());
        assert_eq!(inputs(each(), TimeColumn::Context).rows_of_same_time(0..4), 1);
        assert_eq!(inputs(each(), TimeColumn::Context).rows_of_same_time(1..4), 3);
        assert_eq!(inputs(each(), TimeColumn::First).rows_of_same_time(0..4), 4);
        assert_eq!(inputs(7.into(), TimeColumn::Context).rows_of_same_time(0..4), 4);
        assert_eq!(inputs(each(), TimeColumn::Context).select(&[0, 3]).first_time(), 7);
    }
}
