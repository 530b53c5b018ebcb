//! The parts of a result in versions 0.2 and 0.3 of the contract, in which a result is one byte buffer.

/// The parts of the buffer, before they are joined. The modes corrupt them.
pub(crate) struct Parts {
    pub(crate) y_present: Vec<u8>,
    pub(crate) y: Vec<f64>,
    pub(crate) flag: Vec<u8>,
    pub(crate) text_present: Vec<u8>,
    /// The presence bits of the other columns.
    pub(crate) rest_present: Vec<u8>,
    pub(crate) text_ends: Vec<u32>,
    pub(crate) item_lists: Vec<u32>,
    pub(crate) word_lists: Vec<u32>,
    pub(crate) text: Vec<u8>,
    pub(crate) items: Vec<f64>,
    pub(crate) word_ends: Vec<u32>,
    pub(crate) words: Vec<u8>,
}

const SAID: &str = "äl well";
const WORDS_SAID: [&str; 2] = ["all", "well"];

/// Returns the doubles of a column of the inputs. `start` is the offset of the column's head.
pub(crate) fn doubles(inputs: &[u8], start: usize, rows: usize) -> Vec<f64> {
    let slots = &inputs[start + presence_len(rows)..];
    slots.chunks_exact(8).take(rows).map(|x| f64::from_bits(bits(x))).collect()
}

/// Returns the ends and the items of the last column of the inputs, which has lists of doubles. `start` is the offset of
/// the column's head.
#[cfg(feature = "frames")]
pub(crate) fn lists(inputs: &[u8], start: usize, rows: usize) -> (Vec<u32>, Vec<f64>) {
    let slots = start + presence_len(rows);
    let ends = inputs[slots..].chunks_exact(4).take(rows).map(|end| bits(end) as u32).collect();
    let items = inputs[slots + (rows * 4).next_multiple_of(8)..].chunks_exact(8);
    (ends, items.map(|item| f64::from_bits(bits(item))).collect())
}

/// Returns the size of a head with one slot of eight bytes per row.
pub(crate) fn head_len(rows: usize) -> usize {
    presence_len(rows) + rows * 8
}

fn bits(word: &[u8]) -> u64 {
    word.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn presence_len(rows: usize) -> usize {
    rows.div_ceil(64) * 8
}

pub(crate) fn present(rows: usize) -> Vec<u8> {
    let mut presence = vec![0; presence_len(rows)];
    (0..rows).for_each(|row| presence[row / 8] |= 1 << (row % 8));
    presence
}

/// Returns the ends of items with these lengths: the sums of the lengths up to each item.
pub(crate) fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let end = |sum: &mut usize, len: usize| {
        *sum += len;
        Some(*sum as u32)
    };
    lengths.scan(0, end).collect()
}

impl Parts {
    pub(crate) fn good(rows: usize, x: &[f64]) -> Self {
        let x: Vec<f64> = (0..rows).map(|row| x.get(row).copied().unwrap_or(0.0)).collect();
        Self {
            y_present: present(rows),
            y: x.iter().map(|x| 2.0 * x).collect(),
            flag: x.iter().map(|x| u8::from(*x > 0.0)).collect(),
            text_present: present(rows),
            rest_present: present(rows),
            text_ends: ends((0..rows).map(|_| SAID.len())),
            item_lists: ends((0..rows).map(|_| 1)),
            word_lists: ends((0..rows).map(|_| WORDS_SAID.len())),
            text: SAID.repeat(rows).into(),
            items: x,
            word_ends: ends((0..rows).flat_map(|_| WORDS_SAID.map(str::len))),
            words: WORDS_SAID.concat().repeat(rows).into(),
        }
    }

    /// Makes ends decrease. The last end stays valid, so that there is no other error.
    #[cfg(feature = "frames")]
    pub(crate) fn fall(ends: &mut [u32]) {
        if let [first, .., last] = ends {
            *first = *last + 1;
        }
    }

    #[cfg(feature = "frames")]
    pub(crate) fn beyond(ends: &mut [u32]) {
        ends.iter_mut().for_each(|end| *end = u32::MAX);
    }

    /// Clears the presence bits of rows in all columns. Values stay in the slots, and the host clears them.
    #[cfg(feature = "batches")]
    pub(crate) fn with_nulls(mut self, rows: &[usize]) -> Self {
        for presence in [&mut self.y_present, &mut self.text_present, &mut self.rest_present] {
            rows.iter().for_each(|row| presence[row / 8] &= !(1 << (row % 8)));
        }
        self
    }

    /// Joins the parts. `word_presence` has the presence bits of the items of `words`, if the contract has them.
    pub(crate) fn frame(&self, word_presence: Option<&[u8]>) -> Vec<u8> {
        let doubles = |of: &[f64]| of.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let ends = |of: &[u32]| of.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
        // The vector is allocated at its final size. A vector that grows needs twice its size, for which there is not
        // enough memory in mode `gigantic`.
        let mut frame = Vec::with_capacity(self.text.len() + 256 * self.y.len() + 4_096);
        for part in [
            // The heads of `y`, `flag`, `text`, `items` and `words`.
            &self.y_present[..],
            &doubles(&self.y),
            &self.rest_present,
            &self.flag,
            &self.text_present,
            &ends(&self.text_ends),
            &self.rest_present,
            &ends(&self.item_lists),
            &self.rest_present,
            &ends(&self.word_lists),
            // The tails of `text`, `items` and `words`.
            &self.text,
            &doubles(&self.items),
            word_presence.unwrap_or_default(),
            &ends(&self.word_ends),
            &self.words,
        ] {
            frame.extend_from_slice(part);
            frame.resize(frame.len().next_multiple_of(8), 0);
        }
        frame
    }
}
