//! Compares frames with a naive model: a list of values for each column.

use larder_model::model::Value;
use proptest::prelude::*;

use super::*;
use crate::frame::tests::{Batch, SCALARS, batch, fill, values};

proptest! {
    #[test]
    fn filled_values_are_readable(batch in batch()) {
        let frame = batch.frame();
        prop_assert_eq!(frame.rows(), batch.rows);
        for (column, (of, rows)) in frame.columns().zip(&batch.columns) {
            prop_assert_eq!(column.column_type(), *of);
            prop_assert_eq!(column.has_nulls(), rows.contains(&Value::Null));
            let present: Vec<bool> = (0..batch.rows).map(|row| column.is_present(row)).collect();
            let expected: Vec<bool> = rows.iter().map(|row| *row != Value::Null).collect();
            prop_assert_eq!(present, expected);
        }
        prop_assert_eq!(values(frame), batch.values());
    }

    #[test]
    fn extend_equals_pushes(batch in batch(), split in any::<prop::sample::Index>()) {
        let mut frame = FrameBuilder::new(batch.types(), batch.rows);
        for (of, rows) in &batch.columns {
            let (first, others) = rows.split_at(split.index(rows.len() + 1));
            frame.column(|column| {
                if of.is_list {
                    fill(column, rows);
                } else {
                    column.extend(first.iter().map(Value::as_item));
                    column.extend(others.iter().map(Value::as_item));
                }
            });
        }
        prop_assert_eq!(frame.finish().bytes().to_vec(), batch.frame().bytes().to_vec());
    }

    #[test]
    fn slice_equals_frame_of_its_rows(batch in batch(), from in 0..40_usize, to in 0..40_usize) {
        let (from, to) = (from.min(batch.rows), to.min(batch.rows));
        let range = from.min(to)..from.max(to);
        let slice = batch.frame().slice(range.clone());
        prop_assert_eq!(batch.frame().bytes_of(range.clone()), slice.bytes().len());
        prop_assert_eq!(slice.bytes().to_vec(), batch.select(&range.collect::<Vec<_>>()).frame().bytes().to_vec());
    }

    #[test]
    fn selection_equals_frame_of_its_rows(batch in batch(), picked in prop::collection::vec(0..40_usize, 0..50)) {
        let mut picked: Vec<usize> = picked.into_iter().filter(|row| *row < batch.rows).collect();
        let expected = batch.select(&picked).frame();
        prop_assert_eq!(batch.frame().select(&picked).bytes().to_vec(), expected.bytes().to_vec(), "any order, also repeated");
        picked.sort_unstable();
        picked.dedup();
        let expected = batch.select(&picked).frame();
        prop_assert_eq!(batch.frame().select(&picked).bytes().to_vec(), expected.bytes().to_vec(), "consecutive runs");
    }

    #[test]
    fn joined_slices_equal_the_whole(batch in batch(), size in 1..40_usize) {
        let frame = batch.frame();
        let starts = (0..batch.rows).step_by(size);
        let parts: Vec<Frame> = starts.map(|start| frame.slice(start..batch.rows.min(start + size))).collect();
        let whole = Frame::concat(batch.types(), &parts);
        prop_assert_eq!(whole.bytes().to_vec(), frame.bytes().to_vec());
        prop_assert_eq!(whole.columns, frame.columns);
    }

    #[test]
    fn missing_rows_are_null_and_surplus_rows_are_ignored(batch in batch(), rows in 0..60_usize) {
        let mut frame = FrameBuilder::new(batch.types(), rows);
        for (_, values) in &batch.columns {
            frame.column(|column| fill(column, values));
        }
        let expected = |values: &Vec<Value>| (0..rows).map(|i| values.get(i).cloned().unwrap_or(Value::Null)).collect();
        let columns = batch.columns.iter().map(|(of, values)| (*of, expected(values))).collect();
        prop_assert_eq!(frame.finish().bytes().to_vec(), Batch { rows, columns }.frame().bytes().to_vec());
    }
}

#[test]
fn mistyped_value_becomes_null() {
    for scalar in SCALARS {
        for is_list in [false, true] {
            let mut frame = FrameBuilder::new([ColumnType { scalar, is_list, nullable_items: false }], 2);
            frame.column(|column| {
                column.push(if scalar == ColumnScalar::Bool { ValueRef::Int32(1) } else { ValueRef::Bool(true) });
                column.push_default();
            });
            let frame = frame.finish();
            let column = frame.column(0);
            assert_eq!((column.is_present(0), column.is_present(1)), (false, true), "{scalar:?}");
            let mut other = FrameBuilder::new([ColumnType { scalar, is_list: !is_list, nullable_items: false }], 2);
            other.column(|to| to.append(column, 0..2));
            assert!((0..2).all(|row| !other.frame.column(0).is_present(row)), "{scalar:?}");
        }
    }
}

#[test]
fn unfilled_columns_are_null() {
    let types = || {
        SCALARS
            .into_iter()
            .flat_map(|scalar| [false, true].map(|is_list| ColumnType { scalar, is_list, nullable_items: false }))
    };
    let frame = FrameBuilder::new(types(), 9).finish();
    let columns = types().map(|of| (of, vec![Value::Null; 9])).collect();
    assert_eq!(frame.bytes(), Batch { rows: 9, columns }.frame().bytes());
    assert!(frame.bytes().iter().all(|byte| *byte == 0));
}
