//! The result of a plugin in a test.

use std::ops::Index;

use super::{BY_ITSELF, Computed, Value, columns};
use crate::run::{Plugin, describe};

/// The result of a plugin: a column of values for each output, by name, and the rows that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<(&'static str, Vec<Value>)>,
    /// The message of each row, if it failed.
    faults: Vec<Option<String>>,
}

impl Table {
    /// Returns the values of an output, or `None` if no output has this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[Value]> {
        self.columns.iter().find(|(column, _)| *column == name).map(|(_, values)| values.as_slice())
    }

    /// Returns the numbers and the messages of the rows that failed, in order. All outputs of a failed row are null.
    #[must_use]
    pub fn failed(&self) -> Vec<(usize, &str)> {
        let faults = self.faults.iter().enumerate();
        faults.filter_map(|(row, fault)| Some((row, fault.as_deref()?))).collect()
    }

    /// Reads the result of a call. If the whole batch failed, each of its rows failed.
    #[track_caller]
    pub(super) fn of<P: Plugin>(computed: Computed, rows: usize) -> Self {
        let outputs = P::fields().outputs;
        let names = outputs.iter().map(|output| output.name);
        let (frame, failed) = match computed {
            Ok(computed) => computed,
            Err(message) => {
                let columns = names.map(|name| (name, vec![Value::Null; rows])).collect();
                return Self { columns, faults: vec![Some(message); rows] };
            }
        };
        let mut faults = vec![None; rows];
        failed.into_iter().for_each(|(row, message)| faults[row as usize] = Some(message));
        let table = Self { columns: names.zip(columns::read(outputs, &frame, rows)).collect(), faults };
        for ((name, values), output) in table.columns.iter().zip(describe::<P>().outputs) {
            let mut computed = values.iter().zip(&table.faults).filter(|(_, fault)| fault.is_none());
            let has_null = computed.any(|(value, _)| value.is_null());
            assert!(output.nullable || !has_null, "output '{name}' has a null, but is declared as never null");
        }
        table
    }

    /// Returns a table with the rows of all tables.
    pub(super) fn concat<P: Plugin>(tables: Vec<Self>) -> Self {
        let columns = P::fields().outputs.iter().map(|output| (output.name, Vec::new())).collect();
        let mut all = Self { columns, faults: Vec::new() };
        for table in tables {
            for ((_, values), (_, more)) in all.columns.iter_mut().zip(table.columns) {
                values.extend(more);
            }
            all.faults.extend(table.faults);
        }
        all
    }

    /// Returns a table with the same rows in reversed order.
    pub(super) fn reversed(mut self) -> Self {
        self.columns.iter_mut().for_each(|(_, values)| values.reverse());
        self.faults.reverse();
        self
    }

    /// Checks that another run, which is described by `how`, gave each row the same result.
    #[track_caller]
    pub(super) fn check_same(&self, other: &Self, how: &str) {
        let rows = |differs: &dyn Fn(usize) -> bool| {
            let rows: Vec<String> =
                (0..self.faults.len()).filter(|row| differs(*row)).map(|row| row.to_string()).collect();
            (!rows.is_empty()).then(|| rows.join(", "))
        };
        if let Some(rows) = rows(&|row| self.faults[row].is_some() != other.faults[row].is_some()) {
            panic!("rows {rows} fail either in the batch or {how}, but not in both. {BY_ITSELF}");
        }
        for ((name, values), (_, others)) in self.columns.iter().zip(&other.columns) {
            if let Some(rows) = rows(&|row| !values[row].has_same_bits(&others[row])) {
                panic!("output '{name}' of rows {rows} has one value in the batch, and another one {how}. {BY_ITSELF}");
            }
        }
    }
}

impl Index<&str> for Table {
    type Output = [Value];

    #[track_caller]
    fn index(&self, name: &str) -> &[Value] {
        let known = || self.columns.iter().map(|(column, _)| *column).collect::<Vec<_>>().join(", ");
        self.get(name).unwrap_or_else(|| panic!("there is no output '{name}'; the outputs are {}", known()))
    }
}
