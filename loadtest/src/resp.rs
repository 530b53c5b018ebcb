//! The parts of Redis' protocol, RESP 2, that are needed to send pipelined commands and to find the end of their
//! replies.

use std::ops::Range;

/// The state of a parser of replies, which continues when more bytes arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies {
    /// The number of elements that have not been read yet. An element is a reply to a command, or an item of an array.
    open: usize,
    /// The number of bytes that have been parsed, which is the offset at which parsing continues.
    read: usize,
    /// Whether any reply was an error.
    pub(crate) failed: bool,
    /// The number of strings, without nulls.
    pub(crate) values: usize,
    /// The number of nulls. Redis returns null for a missing field.
    pub(crate) nulls: usize,
}

/// The error that bytes are not valid RESP, with the text of what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotResp(pub(crate) &'static str);

/// Appends one command with its arguments.
pub(crate) fn write_command<'a>(args: impl ExactSizeIterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

// === impl Replies ===

impl Replies {
    /// Creates the state for reading the replies to this many commands.
    pub(crate) fn to(commands: usize) -> Self {
        Self { open: commands, ..Self::default() }
    }

    /// Continues to parse a buffer that has grown. Returns the end of the last reply once all replies are complete.
    pub(crate) fn read(&mut self, buffer: &[u8]) -> Result<Option<usize>, NotResp> {
        while self.open > 0 {
            let Some((line, after)) = line(buffer, self.read) else { return Ok(None) };
            let Some((&kind, rest)) = buffer[line].split_first() else { return Err(NotResp("a type of reply")) };
            match kind {
                b'+' | b':' => self.close(after),
                b'-' => {
                    self.failed = true;
                    self.close(after);
                }
                b'$' => match length(rest)? {
                    None => {
                        self.nulls += 1;
                        self.close(after);
                    }
                    Some(bytes) if after + bytes + 2 <= buffer.len() => {
                        self.values += 1;
                        self.close(after + bytes + 2);
                    }
                    // The line is parsed again when the rest arrives.
                    Some(_) => return Ok(None),
                },
                b'*' => {
                    self.open += length(rest)?.unwrap_or(0);
                    self.close(after);
                }
                _ => return Err(NotResp("a type of reply")),
            }
        }
        Ok(Some(self.read))
    }

    fn close(&mut self, read: usize) {
        self.open -= 1;
        self.read = read;
    }
}

/// Returns the range of the line that begins at `start`, and the start of the next line. Returns `None` if the line is
/// not complete.
fn line(buffer: &[u8], start: usize) -> Option<(Range<usize>, usize)> {
    let end = buffer.get(start..)?.windows(2).position(|window| window == b"\r\n")?;
    Some((start..start + end, start + end + 2))
}

/// Parses a length. Returns `None` for the length of a null, which is -1.
fn length(digits: &[u8]) -> Result<Option<usize>, NotResp> {
    const BYTES_MAX: usize = 64 << 20;
    if digits == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(digits).map_err(|_| NotResp("a length"))?;
    let length = text.parse().ok().filter(|&length| length <= BYTES_MAX);
    length.map(Some).ok_or(NotResp("a length within bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"*3\r\n$5\r\n1.5\r\n\r\n$-1\r\n$0\r\n\r\n+OK\r\n:7\r\n";

    #[test]
    fn commands_are_written_as_arrays() {
        let mut out = Vec::new();
        write_command(["HMGET", "view:1", "Größe"].into_iter(), &mut out);
        assert_eq!(out, "*3\r\n$5\r\nHMGET\r\n$6\r\nview:1\r\n$7\r\nGröße\r\n".as_bytes());
    }

    #[test]
    fn replies_parse_whole_and_byte_by_byte() {
        // The bytes are parsed in one piece, and then byte by byte.
        let mut replies = Replies::to(3);
        assert_eq!(replies.read(ANSWER), Ok(Some(ANSWER.len())));
        assert_eq!((replies.values, replies.nulls, replies.failed), (2, 1, false));
        let mut slowly = Replies::to(3);
        for end in 0..ANSWER.len() {
            assert_eq!(slowly.read(&ANSWER[..end]), Ok(None), "{end}");
        }
        assert_eq!(slowly.read(ANSWER), Ok(Some(ANSWER.len())));
        assert_eq!(slowly, replies);
    }

    #[test]
    fn bytes_after_replies_are_not_read() {
        assert_eq!(Replies::to(1).read(b"+OK\r\n+more"), Ok(Some(5)));
        assert_eq!(Replies::to(1).read(b"*0\r\n"), Ok(Some(4)));
        assert_eq!(Replies::to(1).read(b"*-1\r\n"), Ok(Some(5)));
    }

    #[test]
    fn error_replies_are_flagged_and_garbage_rejected() {
        let mut replies = Replies::to(2);
        assert_eq!(replies.read(b"-ERR no\r\n+OK\r\n"), Ok(Some(14)));
        assert!(replies.failed);
        for garbage in ["HTTP/1.1 200 OK\r\n", "\r\n", "$x\r\n", "$-2\r\n", "*99999999999\r\n"] {
            assert!(Replies::to(1).read(garbage.as_bytes()).is_err(), "{garbage:?}");
        }
    }
}
