//! Scans data in Thrift's compact protocol without storing it.
//!
//! Footers and page headers are checked with this scanner before the Parquet reader converts them. The Parquet reader
//! allocates as much memory as a header claims to need, and reads nested types recursively.

use std::io::{self, Read};

/// A scanner of the compact protocol, with a limit on the number of bytes read.
pub(super) struct Compact<R> {
    input: R,
    left: u64,
    start: u64,
}

/// The kind of a field or a list element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    True,
    False,
    Byte,
    Int,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

/// The maximum nesting depth. Parquet's structures are nested only a few levels deep.
const DEPTH_MAX: usize = 32;

// === impl Kind ===

impl Kind {
    fn of(byte: u8) -> Result<Self, String> {
        Ok(match byte {
            1 => Self::True,
            2 => Self::False,
            3 => Self::Byte,
            4..=6 => Self::Int,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            other => return Err(format!("a value has the unknown type {other}")),
        })
    }
}

// === impl Compact ===

impl<R: Read> Compact<R> {
    /// Creates a scanner that reads at most `bytes_max` bytes of the input.
    pub(super) fn new(input: R, bytes_max: u64) -> Self {
        Self { input, left: bytes_max, start: bytes_max }
    }

    /// Returns the number of bytes read.
    pub(super) fn position(&self) -> u64 {
        self.start - self.left
    }

    /// Returns the number and kind of a structure's next field; `None` at the structure's end. `last` is the number of
    /// the previous field, or 0 at the beginning.
    pub(super) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, Kind)>, String> {
        let head = self.byte()?;
        if head & 0x0f == 0 {
            return Ok(None);
        }
        let kind = Kind::of(head & 0x0f)?;
        *last = match head >> 4 {
            0 => i16::try_from(self.int()?).map_err(|_| "a field's number is too large".to_owned())?,
            delta => last.checked_add(i16::from(delta)).ok_or("a field's number is too large")?,
        };
        Ok(Some((*last, kind)))
    }

    /// Reads the header of a list: the kind and the number of its elements.
    pub(super) fn list(&mut self) -> Result<(Kind, u64), String> {
        let head = self.byte()?;
        if head == 0 {
            // Some writers write a zero byte for an empty list.
            return Ok((Kind::Byte, 0));
        }
        let kind = Kind::of(head & 0x0f)?;
        let size = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        self.check_count(size)?;
        Ok((kind, size))
    }

    /// Reads an integer of any width.
    pub(super) fn int(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Skips a string or bytes, and returns the length.
    pub(super) fn binary(&mut self) -> Result<u64, String> {
        let length = self.varint()?;
        self.skip_bytes(length)?;
        Ok(length)
    }

    /// Skips a value.
    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), String> {
        self.skip_within(kind, false, DEPTH_MAX)
    }

    fn skip_within(&mut self, kind: Kind, is_element: bool, depth: usize) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else { return Err("structures are nested too deeply".to_owned()) };
        match kind {
            // The header of a boolean field contains its value; a boolean element takes a byte.
            Kind::True | Kind::False => self.skip_bytes(u64::from(is_element)),
            Kind::Byte => self.skip_bytes(1),
            Kind::Int => self.varint().map(|_| ()),
            Kind::Double => self.skip_bytes(8),
            Kind::Uuid => self.skip_bytes(16),
            Kind::Binary => self.binary().map(|_| ()),
            Kind::Struct => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_within(kind, false, depth)?;
                }
                Ok(())
            }
            Kind::List => {
                let (kind, size) = self.list()?;
                (0..size).try_for_each(|_| self.skip_within(kind, true, depth))
            }
            Kind::Map => {
                let size = self.varint()?;
                if size == 0 {
                    return Ok(());
                }
                self.check_count(size)?;
                let kinds = self.byte()?;
                let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 0x0f)?);
                (0..size).try_for_each(|_| {
                    self.skip_within(key, true, depth)?;
                    self.skip_within(value, true, depth)
                })
            }
        }
    }

    /// Checks that this many elements can follow, each of at least one byte.
    fn check_count(&self, count: u64) -> Result<(), String> {
        if count <= self.left { Ok(()) } else { Err(format!("a list claims {count} elements in {} bytes", self.left)) }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer has more than ten bytes".to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.consume(1)?;
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|error| message(&error))?;
        Ok(byte[0])
    }

    fn skip_bytes(&mut self, bytes: u64) -> Result<(), String> {
        self.consume(bytes)?;
        let skipped = io::copy(&mut Read::by_ref(&mut self.input).take(bytes), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == bytes => Ok(()),
            Ok(_) => Err("it is truncated".to_owned()),
            Err(error) => Err(message(&error)),
        }
    }

    /// Counts bytes against the limit.
    fn consume(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or("it is truncated")?;
        Ok(())
    }
}

fn message(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is truncated".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(bytes: &[u8]) -> Result<u64, String> {
        let mut compact = Compact::new(bytes, bytes.len() as u64);
        compact.skip(Kind::Struct)?;
        Ok(compact.position())
    }

    #[test]
    fn structure_is_skipped_to_its_end() {
        // Fields 1: int, 2: binary, 3: true, 4: list of two structures, 9: map of int to binary; then another byte.
        let bytes = [0x15, 0x04, 0x18, 0x02, 7, 7, 0x11, 0x19, 0x2c, 0, 0, 0x5b, 0x01, 0x58, 0x02, 0x01, 9, 0, 0xff];
        assert_eq!(skip(&bytes), Ok(18));
        for length in 0..18 {
            assert!(skip(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn excessive_claimed_lengths_are_errors() {
        // A list that claims 2^31 - 1 booleans, and a string that claims 2^62 bytes.
        assert!(skip(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0]).unwrap_err().contains("in 1 bytes"));
        let long = [0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0];
        assert_eq!(skip(&long).unwrap_err(), "it is truncated");
        let endless = [0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert!(skip(&endless).unwrap_err().contains("ten bytes"));
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(skip(&vec![0x1c; 1 << 20]).unwrap_err().contains("nested too deeply"));
    }
}
