//! Generates inputs for tests of a plugin. The same seed generates the same rows.
//!
//! * Row 0 has only nulls, and row 1 has only default values.
//! * One row in four is extreme: it has nulls, the limits of numbers, values that are not numbers, and lists of up to
//!   1,000 items.
//! * The other rows are plausible: text looks like names, dates, addresses, numbers and JSON, and all lists of a row
//!   have the same length, as plugins that compare lists expect it.

use larder_model::model::{Micros, ValueRef};

use crate::{AsOf, ColumnScalar, ColumnType, ColumnWriter, Inputs, Transform, view_types};

/// Generates inputs.
#[derive(Clone, Copy, Debug)]
pub struct RowGenerator {
    seed: u64,
}

/// Generates pseudorandom numbers with `SplitMix64` (Steele, Lea and Flood, 2014).
struct Random(u64);

/// What the cells of a row have in common.
#[derive(Clone, Copy)]
struct RowKind {
    row: usize,
    is_extreme: bool,
    /// The number of items of lists.
    items: usize,
}

/// The lengths of lists. Most are short.
const LENGTHS: [usize; 8] = [0, 1, 2, 3, 3, 8, 16, 128];
const LENGTHS_EXTREME: [usize; 4] = [0, 1, 7, 1_000];
const TEXTS: [&str; 24] = [
    "",
    "a",
    "Month-to-month",
    "One year",
    "Zürich",
    "日本",
    "Anna Kowalska",
    "x y",
    "0",
    "42",
    "-1.5e3",
    "12,50 €",
    "2026-11-29",
    "2026-11-29T18:30:00Z",
    "anna@example.com",
    "https://example.com/a?b=c",
    "192.0.2.7",
    "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "true",
    "null",
    "{}",
    "[1, 2.5, null, \"a\"]",
    "{\"amount\": 12.5, \"items\": [{\"id\": 1, \"name\": \"a\"}], \"country\": \"CH\"}",
    "{\"a\": {\"b\": {\"c\": [true, false, null]}}}",
];
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 2026-01-01T00:00:00Z in microseconds.
const NEW_YEAR_2026: Micros = 1_767_225_600_000_000;

// === impl RowGenerator ===

impl RowGenerator {
    /// Creates a generator.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Generates rows for a plugin's inputs.
    #[must_use]
    pub fn inputs(self, transform: &Transform, rows: usize) -> Inputs {
        let times = (0..rows).map(|row| self.time(row));
        let as_of = if transform.has_time_per_row() { AsOf::Each(times.collect()) } else { AsOf::All(NEW_YEAR_2026) };
        let mut inputs = transform.input_batch(as_of, rows);
        for index in 0..inputs.column_count() {
            let examples = view_types::examples(transform.input_type(index));
            inputs.column(|column| {
                if examples.is_empty() || column.column_type().is_list {
                    (0..rows).for_each(|row| self.cell(column, index, self.kind(row), &examples));
                } else {
                    self.examples(column, index, rows, &examples);
                }
            });
        }
        inputs.finish()
    }

    /// Fills a column with these texts, because the host passes only texts of the type.
    fn examples(self, column: &mut ColumnWriter<'_>, index: usize, rows: usize, examples: &[String]) {
        for row in 0..rows {
            let mut random = Random::new(self.seed, row, index);
            let text = match row {
                0 => None,
                1 => examples.first(),
                _ if random.below(8) == 0 || examples.is_empty() => None,
                _ => Some(random.pick(examples)),
            };
            column.push(text.map_or(ValueRef::Null, |text| ValueRef::Bytes(text.as_bytes())));
        }
    }

    fn time(self, row: usize) -> Micros {
        let days = Random::new(self.seed, row, usize::MAX).below(365);
        NEW_YEAR_2026 + MICROS_PER_DAY * i64::try_from(days).unwrap_or_default()
    }

    fn kind(self, row: usize) -> RowKind {
        let mut random = Random::new(self.seed, row, usize::MAX - 1);
        let is_extreme = row % 4 == 3;
        let items = if is_extreme { random.pick(&LENGTHS_EXTREME) } else { random.pick(&LENGTHS) };
        RowKind { row, is_extreme, items: *items }
    }

    /// Adds a row. The items of a list of text are taken from `examples`, unless there are none.
    fn cell(self, column: &mut ColumnWriter<'_>, index: usize, kind: RowKind, examples: &[String]) {
        let mut random = Random::new(self.seed, kind.row, index);
        let ColumnType { scalar, is_list, nullable_items } = column.column_type();
        match kind.row {
            0 => return column.push(ValueRef::Null),
            1 => return column.push_default(),
            _ if random.below(if kind.is_extreme { 4 } else { 16 }) == 0 => return column.push(ValueRef::Null),
            _ => {}
        }
        if !is_list {
            let text = random.text(kind.is_extreme);
            return column.push(random.value(scalar, kind.is_extreme, &text));
        }
        let items = if kind.is_extreme { *random.pick(&LENGTHS_EXTREME) } else { kind.items };
        let mut text = || if examples.is_empty() { random.text(false) } else { random.pick(examples).clone() };
        let texts: Vec<String> = (0..items).map(|_| text()).collect();
        let values: Vec<ValueRef<'_>> = texts
            .iter()
            .map(|text| match nullable_items && random.below(4) == 0 {
                true => ValueRef::Null,
                false => random.value(scalar, kind.is_extreme, text),
            })
            .collect();
        column.push_list(values.into_iter());
    }
}

// === impl Random ===

impl Random {
    /// Creates the generator of a cell.
    fn new(seed: u64, row: usize, index: usize) -> Self {
        let mut random = Self(seed ^ (row as u64).wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.0 = random.next() ^ (index as u64).wrapping_mul(0x8cb9_2ba7_2f3d_8dd7);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or_default()]
    }

    fn value<'t>(&mut self, of: ColumnScalar, is_extreme: bool, text: &'t str) -> ValueRef<'t> {
        match of {
            ColumnScalar::Bool => ValueRef::Bool(self.below(2) == 0),
            ColumnScalar::Int32 => ValueRef::Int32(self.int32(is_extreme)),
            ColumnScalar::Int64 => ValueRef::Int64(self.int64(is_extreme)),
            ColumnScalar::Timestamp => ValueRef::Int64(self.instant(is_extreme)),
            ColumnScalar::Float32 => ValueRef::Float32(self.float32(is_extreme)),
            ColumnScalar::Float64 => ValueRef::Float64(self.float64(is_extreme)),
            ColumnScalar::Utf8 | ColumnScalar::Binary => ValueRef::Bytes(text.as_bytes()),
        }
    }

    fn int32(&mut self, is_extreme: bool) -> i32 {
        if is_extreme { *self.pick(&[i32::MIN, -1, 0, 1, i32::MAX]) } else { self.small(i32::try_from) }
    }

    fn int64(&mut self, is_extreme: bool) -> i64 {
        if is_extreme { *self.pick(&[i64::MIN, -1, 0, 1, 1 << 53, i64::MAX]) } else { self.small(i64::try_from) }
    }

    /// Returns a number from 0 to 999.
    fn small<T: Default, E>(&mut self, of: impl FnOnce(u64) -> Result<T, E>) -> T {
        of(self.below(1_000)).unwrap_or_default()
    }

    fn instant(&mut self, is_extreme: bool) -> i64 {
        if is_extreme {
            return *self.pick(&[0, -1, 1, 253_402_300_799_999_999]);
        }
        NEW_YEAR_2026 - self.small(i64::try_from) * MICROS_PER_DAY + self.small(i64::try_from)
    }

    fn float32(&mut self, is_extreme: bool) -> f32 {
        const EXTREMES: [f32; 8] =
            [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, f32::MAX, f32::MIN];
        if is_extreme { *self.pick(&EXTREMES) } else { f32::from(self.small(u16::try_from)) / 8.0 }
    }

    fn float64(&mut self, is_extreme: bool) -> f64 {
        const EXTREMES: [f64; 8] =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, f64::MIN];
        if is_extreme { *self.pick(&EXTREMES) } else { f64::from(self.small(u16::try_from)) / 7.0 }
    }

    fn text(&mut self, is_extreme: bool) -> String {
        let text = *self.pick(&TEXTS);
        if is_extreme && self.below(4) == 0 { text.repeat(100) } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, FrameBuilder};

    fn column(of: ColumnType, seed: u64) -> Frame {
        let mut frame = FrameBuilder::new([of], 512);
        let generator = RowGenerator::new(seed);
        frame.column(|column| (0..512).for_each(|row| generator.cell(column, 3, generator.kind(row), &[])));
        frame.finish()
    }

    fn values(frame: &Frame) -> Vec<ValueRef<'_>> {
        (0..frame.rows()).map(|row| frame.column(0).values().get(row)).collect()
    }

    #[test]
    fn same_seed_gives_same_rows() {
        for scalar in [ColumnScalar::Float64, ColumnScalar::Utf8, ColumnScalar::Bool] {
            for of in [ColumnType::single(scalar), ColumnType::list(scalar)] {
                assert!(column(of, 1).column(0) == column(of, 1).column(0));
                assert!(column(of, 1).column(0) != column(of, 2).column(0));
            }
        }
    }

    #[test]
    fn rows_have_nulls_and_extremes() {
        let ints = column(ColumnType::single(ColumnScalar::Int64), 1);
        assert!(!ints.column(0).is_present(0) && ints.column(0).is_present(1));
        assert!(ints.column(0).null_count() > 20, "{}", ints.column(0).null_count());
        let ints = values(&ints);
        assert_eq!(ints[1], ValueRef::Int64(0));
        for wanted in [i64::MIN, i64::MAX, 1 << 53] {
            assert!(ints.contains(&ValueRef::Int64(wanted)), "{wanted}");
        }
        let doubles = column(ColumnType::single(ColumnScalar::Float64), 1);
        assert!(values(&doubles).iter().any(|value| matches!(value, ValueRef::Float64(value) if value.is_nan())));
        let texts = column(ColumnType::TEXT, 1);
        let texts: Vec<&[u8]> =
            values(&texts).iter().filter_map(|v| if let ValueRef::Bytes(v) = v { Some(*v) } else { None }).collect();
        assert!(texts.iter().any(|text| text.starts_with(b"{\"amount\"")) && texts.iter().any(|text| text.len() > 999));
    }

    #[test]
    fn plausible_rows_have_lists_of_one_length() {
        let generator = RowGenerator::new(1);
        let types = [ColumnType::list(ColumnScalar::Float32), ColumnType::list(ColumnScalar::Float32)];
        let mut frame = FrameBuilder::new(types, 512);
        for index in 0..2 {
            frame.column(|column| (0..512).for_each(|row| generator.cell(column, index, generator.kind(row), &[])));
        }
        let frame = frame.finish();
        let len = |index: usize, row: usize| frame.column(index).items(row..row + 1).len();
        let is_full = |row: usize| (0..2).all(|index| frame.column(index).is_present(row));
        let plausible = (2..512).filter(|row| row % 4 != 3 && is_full(*row));
        assert!(plausible.clone().all(|row| len(0, row) == len(1, row)) && plausible.count() > 100);
        assert!((0..512).any(|row| len(0, row) == 1_000));
    }
}
