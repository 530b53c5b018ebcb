//! The digest that identifies a component's file.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use aws_lc_rs::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// SHA-256 of a component's file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Computes the digest of what is written to another writer.
pub struct DigestWriter<W> {
    inner: W,
    context: digest::Context,
    bytes: u64,
}

/// Text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits in lower case")]
pub struct NotADigest;

/// The number of bytes that are read at a time.
const READ_BYTES: usize = 1 << 18;

// === impl Digest ===

impl Digest {
    /// Computes the digest of a file's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut own = [0; 32];
        own.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(own)
    }

    /// Reads to the end of a file. Returns the digest and the number of bytes.
    ///
    /// # Errors
    /// Errors of the reader.
    pub fn read(reader: &mut impl Read) -> io::Result<(Self, u64)> {
        let mut digest = DigestWriter::new(io::sink());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                length => digest.write_all(&buffer[..length])?,
            }
        }
        let (_, own, bytes) = digest.finish();
        Ok((own, bytes))
    }
}

// === impl DigestWriter ===

impl<W: Write> DigestWriter<W> {
    /// Creates a writer that passes everything on to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, context: digest::Context::new(&digest::SHA256), bytes: 0 }
    }

    /// Returns the inner writer, the digest, and the number of bytes that were written.
    pub fn finish(self) -> (W, Digest, u64) {
        let mut own = [0; 32];
        own.copy_from_slice(self.context.finish().as_ref());
        (self.inner, Digest(own), self.bytes)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.context.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: fmt::Debug> fmt::Debug for DigestWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestWriter").field("inner", &self.inner).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if text.len() != 64 || !is_hex {
            return Err(NotADigest);
        }
        let mut own = [0; 32];
        for (byte, at) in own.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(own))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_digest_equals_byte_digest() {
        let bytes = vec![7; 3 * READ_BYTES + 1];
        assert_eq!(Digest::read(&mut &bytes[..]).unwrap(), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(Digest::read(&mut &b""[..]).unwrap(), (Digest::of(b""), 0));
    }

    #[test]
    fn text_of_digest_is_parsed() {
        let digest = Digest::of(b"1");
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.to_uppercase(), &format!("+{}", &text[1..])] {
            assert_eq!(wrong.parse::<Digest>(), Err(NotADigest), "{wrong}");
        }
    }
}
