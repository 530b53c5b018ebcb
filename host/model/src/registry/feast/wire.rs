//! Reads the fields of a protobuf message from the bytes of the message, without its schema.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'b> {
    /// A number of variable length: integers, booleans, enumerations.
    Varint(u64),
    /// Eight bytes.
    Fixed64(&'b [u8]),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'b [u8]),
    /// Four bytes.
    Fixed32(&'b [u8]),
    /// The start or the end of a group, which Feast's messages do not use. The fields of the group are returned as if
    /// they were fields of the message.
    Group,
}

/// Returns the fields of a message, in the order in which the bytes contain them. Ends at invalid bytes.
pub(super) fn fields(bytes: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    let mut rest = bytes;
    std::iter::from_fn(move || next(&mut rest))
}

fn next<'b>(rest: &mut &'b [u8]) -> Option<(u32, Value<'b>)> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok()?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(take(rest, 8)?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        3 | 4 => Value::Group,
        5 => Value::Fixed32(take(rest, 4)?),
        _ => return None,
    };
    Some((number, value))
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_all_kinds_are_found() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let found: Vec<_> = fields(&bytes).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32(&[1, 2, 3, 4])),
            (4, Value::Fixed64(&[1, 2, 3, 4, 5, 6, 7, 8])),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn damaged_bytes_end_iteration() {
        for bytes in [&[0x80][..], &[0x12, 0x05, 1], &[0x0f], &[0xff; 11], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            assert_eq!(fields(bytes).count(), 0, "{bytes:?}");
        }
    }
}
