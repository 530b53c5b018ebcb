//! Computes how many values the rows of an encoded page have, and how long its strings are, without decoding the page.
//!
//! Repetition levels determine which values belong to one row. A run of equal levels takes a few bytes, for any number
//! of values, so a list in a small page can have a billion values. Similarly, a small page can have a billion
//! delta-encoded strings, because a block of equal length differences takes a few bytes.

use bytes::Bytes;

/// The repetition levels of a data page, in Parquet's hybrid encoding of runs and bit-packed groups.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    data: Bytes,
    /// The offset of the next unread byte.
    at: usize,
    /// The number of bits of a level.
    width: usize,
    /// The number of levels that are not consumed yet.
    left: u64,
    run: Run,
}

#[derive(Clone, Debug)]
enum Run {
    /// One level, repeated `left` more times. A level of 0 begins a row.
    Same { begins_row: bool, left: u64 },
    /// `left` more bit-packed levels, starting at bit `bit` of the data.
    Packed { bit: usize, left: u64 },
}

/// The result of consuming levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Consumed {
    /// The number of rows that begin at the consumed levels.
    pub(super) rows: u64,
    /// The number of consumed levels.
    pub(super) levels: u64,
}

/// A summary of the lengths of the strings in a delta-encoded page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    /// The number of lengths.
    pub(super) count: u64,
    /// The largest length.
    pub(super) max: u64,
    /// The offset of the first byte after the lengths.
    pub(super) end: usize,
}

// === impl Levels ===

impl Levels {
    /// Creates the levels of a page with `count` values. `max` is the largest level of the column.
    pub(super) fn new(data: Bytes, max: i16, count: u64) -> Self {
        let width = usize::try_from(i16::BITS - max.max(0).leading_zeros()).unwrap_or(0);
        Self { data, at: 0, width, left: count, run: Run::Same { begins_row: false, left: 0 } }
    }

    /// Returns whether all levels were consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Consumes the remaining levels of the current row, and the levels of the next `rows` rows.
    pub(super) fn consume(&mut self, rows: u64) -> Consumed {
        let mut taken = Consumed::default();
        while self.left > 0 {
            match &mut self.run {
                Run::Same { left: 0, .. } | Run::Packed { left: 0, .. } => {
                    if !self.next_run() {
                        // The data is too short, so the Parquet reader will reject the page. Until then, it may treat
                        // the missing levels as values of one row.
                        taken.levels += self.left;
                        self.left = 0;
                    }
                }
                Run::Same { begins_row: false, left } => {
                    let count = (*left).min(self.left);
                    (*left, self.left) = (*left - count, self.left - count);
                    taken.levels += count;
                }
                Run::Same { begins_row: true, left } => {
                    let count = (*left).min(self.left).min(rows - taken.rows);
                    if count == 0 {
                        return taken;
                    }
                    (*left, self.left) = (*left - count, self.left - count);
                    taken.levels += count;
                    taken.rows += count;
                }
                Run::Packed { bit, left } => {
                    let count = (*left).min(self.left);
                    let (passed, begun) = skip_packed(&self.data, *bit, self.width, count, rows - taken.rows);
                    *bit += usize::try_from(passed).unwrap_or(usize::MAX).saturating_mul(self.width);
                    (*left, self.left) = (*left - passed, self.left - passed);
                    taken.levels += passed;
                    taken.rows += begun;
                    if passed < count {
                        return taken;
                    }
                }
            }
        }
        taken
    }

    /// Reads the header of the next run; returns false if the data has none.
    fn next_run(&mut self) -> bool {
        let Some(head) = varint(&self.data, &mut self.at) else { return false };
        let count = head >> 1;
        if head & 1 == 1 {
            let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(self.width);
            let there = bytes.min(self.data.len() - self.at);
            let bits = there * 8;
            self.run = Run::Packed { bit: self.at * 8, left: (bits / self.width.max(1)) as u64 };
            self.at += there;
            return there > 0 || count == 0;
        }
        let bytes = self.width.div_ceil(8);
        let Some(value) = self.data.get(self.at..self.at + bytes) else { return false };
        self.run = Run::Same { begins_row: value.iter().all(|byte| *byte == 0), left: count };
        self.at += bytes;
        true
    }
}

/// Skips at most `count` bit-packed levels, and stops before more than `rows` rows begin. Returns the number of skipped
/// levels, and the number of rows that begin at them.
fn skip_packed(data: &[u8], bit: usize, width: usize, count: u64, rows: u64) -> (u64, u64) {
    let (mut passed, mut begun, mut bit) = (0, 0, bit);
    while passed < count {
        if width == 1 && bit.is_multiple_of(8) && count - passed >= 8 && rows - begun >= 8 {
            let Some(byte) = data.get(bit / 8) else { break };
            begun += u64::from(byte.count_zeros());
            (passed, bit) = (passed + 8, bit + 8);
            continue;
        }
        let is_zero = (bit..bit + width).all(|bit| data.get(bit / 8).is_none_or(|byte| byte & (1 << (bit % 8)) == 0));
        if is_zero {
            if begun == rows {
                break;
            }
            begun += 1;
        }
        (passed, bit) = (passed + 1, bit + width);
    }
    (passed, begun)
}

// === impl Lengths ===

impl Lengths {
    /// Reads lengths in the encoding `DELTA_BINARY_PACKED` without storing them. The running time is bounded by the
    /// number of bytes, not by the number of values.
    pub(super) fn of(data: &[u8]) -> Result<Self, String> {
        let mut at = 0;
        let mut number = |what: &str| varint(data, &mut at).ok_or_else(|| format!("{what} is truncated"));
        let (block, minis) = (number("the size of a block")?, number("the number of miniblocks")?);
        let count = number("the number of lengths")?;
        let first = zigzag(number("the first length")?);
        let per_mini = block.checked_div(minis).filter(|per_mini| *per_mini > 0 && per_mini.is_multiple_of(32));
        let per_mini = per_mini.ok_or("the block size of the lengths is invalid")?;
        let minis = usize::try_from(minis).unwrap_or(usize::MAX);
        let mut lengths = Self { count, max: 0, end: 0 };
        let (mut last, mut left) = (0, count);
        if left > 0 {
            last = first;
            lengths.add(last)?;
            left -= 1;
        }
        while left > 0 {
            let min_delta = zigzag(varint(data, &mut at).ok_or("a block of lengths is truncated")?);
            let widths =
                at.checked_add(minis).and_then(|end| data.get(at..end)).ok_or("a block of lengths is truncated")?;
            at += minis;
            for width in widths.iter().map(|width| usize::from(*width)) {
                let values = left.min(per_mini);
                if values == 0 {
                    break;
                }
                if width == 0 {
                    // All deltas of the miniblock are equal, so its lengths only rise or only fall. If they rise, the
                    // last one is the largest. If they fall, the length before the miniblock is larger than all of
                    // them, and was already added.
                    let grown = i64::try_from(values).ok().and_then(|values| min_delta.checked_mul(values));
                    last = grown.and_then(|grown| last.checked_add(grown)).ok_or("a length is too large")?;
                    lengths.add(last)?;
                } else {
                    for value in 0..values {
                        let bit = usize::try_from(value).unwrap_or(usize::MAX).saturating_mul(width);
                        let delta = bits(data, at, bit, width).ok_or("a block of lengths is truncated")?;
                        last = last.wrapping_add(min_delta).wrapping_add(delta.cast_signed());
                        lengths.add(last)?;
                    }
                }
                left -= values;
                let bytes = usize::try_from(per_mini / 8).unwrap_or(usize::MAX).saturating_mul(width);
                at = at.saturating_add(bytes);
            }
        }
        lengths.end = at.min(data.len());
        Ok(lengths)
    }

    fn add(&mut self, length: i64) -> Result<(), String> {
        let length = u64::try_from(length).map_err(|_| "a length is negative".to_owned())?;
        if length > u64::from(u32::MAX) {
            return Err("a length is too large".to_owned());
        }
        self.max = self.max.max(length);
        Ok(())
    }
}

/// Reads `width` bits as a number, lowest bit first. `bit` counts from the byte at offset `at`.
fn bits(data: &[u8], at: usize, bit: usize, width: usize) -> Option<u64> {
    let start = at.checked_add(bit / 8)?;
    let end = at.checked_add(bit.checked_add(width)?.div_ceil(8))?;
    let bytes = data.get(start..end)?;
    if width > 64 {
        return None;
    }
    let value = bytes.iter().rev().fold(0_u128, |value, byte| (value << 8) | u128::from(*byte));
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    Some(u64::try_from((value >> (bit % 8)) & u128::from(u64::MAX)).unwrap_or(0) & mask)
}

fn varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes levels, bit-packed in groups of eight.
    fn packed_run(levels: &[u8], width: usize) -> Vec<u8> {
        let groups = levels.len().div_ceil(8);
        let mut bytes = vec![u8::try_from(groups << 1 | 1).unwrap()];
        let mut bits = vec![0; groups * width];
        for (place, level) in levels.iter().enumerate() {
            for bit in (0..width).filter(|bit| level & (1 << bit) != 0) {
                let at = place * width + bit;
                bits[at / 8] |= 1 << (at % 8);
            }
        }
        bytes.extend(bits);
        bytes
    }

    /// Computes the expected result with a loop over the decoded levels.
    fn expected(levels: &[u8], from: &mut usize, rows: u64) -> Consumed {
        let mut taken = Consumed::default();
        while let Some(level) = levels.get(*from) {
            if *level == 0 {
                if taken.rows == rows {
                    break;
                }
                taken.rows += 1;
            }
            taken.levels += 1;
            *from += 1;
        }
        taken
    }

    #[test]
    fn consumed_levels_match_decoded_levels() {
        let mut seed = 7_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        for max in [1_i16, 2, 3, 5] {
            for _ in 0..200 {
                let (mut bytes, mut levels) = (Vec::new(), Vec::new());
                let width = usize::try_from(i16::BITS - max.leading_zeros()).unwrap();
                for _ in 0..random() % 6 {
                    if random() % 2 == 0 {
                        let (level, count) = (u8::try_from(random() % (max as u32 + 1)).unwrap(), random() % 60);
                        bytes.extend([u8::try_from(count << 1).unwrap(), level]);
                        levels.extend(vec![level; count as usize]);
                    } else {
                        let some: Vec<u8> = (0..8 * (random() % 5))
                            .map(|_| u8::try_from(random() % (max as u32 + 1)).unwrap())
                            .collect();
                        bytes.extend(packed_run(&some, width));
                        levels.extend(some);
                    }
                }
                let mut counted = Levels::new(Bytes::from(bytes), max, levels.len() as u64);
                let mut from = 0;
                while !counted.is_empty() {
                    let rows = u64::from(random() % 9);
                    assert_eq!(counted.consume(rows), expected(&levels, &mut from, rows), "{levels:?} from {from}");
                    if rows == 0 && !counted.is_empty() {
                        assert_eq!(counted.consume(1), expected(&levels, &mut from, 1));
                    }
                }
                assert_eq!(from, levels.len());
            }
        }
    }

    #[test]
    fn huge_run_is_consumed_at_once() {
        // One row with 2^30 values.
        let bytes = [&[2_u8, 0][..], &[0xfe, 0xff, 0xff, 0xff, 0x07, 1]].concat();
        let mut levels = Levels::new(Bytes::from(bytes), 1, 1 << 30);
        assert_eq!(levels.consume(5), Consumed { rows: 1, levels: 1 << 30 });
        assert!(levels.is_empty());
    }

    #[test]
    fn lengths_report_count_maximum_and_end() {
        // A block of 128 deltas in four miniblocks: the first value is 3, then 40 deltas of 2 with a bit width of 0.
        let mut even = vec![0x80, 0x01, 4, 41, 6];
        even.extend([4, 0, 0, 0, 0]);
        assert_eq!(Lengths::of(&even), Ok(Lengths { count: 41, max: 83, end: even.len() }));
        // 5, then 9 and 5 by deltas of four bits: min delta -4, deltas 8 and 0.
        let mut uneven = vec![0x80, 0x01, 4, 3, 10, 7, 4, 0, 0, 0];
        uneven.push(0x08);
        uneven.extend([0; 15]);
        assert_eq!(Lengths::of(&uneven), Ok(Lengths { count: 3, max: 9, end: uneven.len() }));
        assert!(Lengths::of(&[0x80, 0x01, 0, 1, 0]).is_err(), "no miniblocks");
        assert!(Lengths::of(&even[..7]).unwrap_err().contains("truncated"));
    }
}
