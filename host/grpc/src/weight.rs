//! Estimates the memory of decoded messages. A value that has two bytes in a message can take many more bytes in
//! memory.

use larder_model::model::FeastValue;
use larder_serving::EntityValue;

use super::message::PREFIX_BYTES;

/// A growing list takes up to three times its size while it is copied.
const GROWTH: usize = 3;
const VALUE_BYTES: usize = GROWTH * (size_of::<FeastValue>() + size_of::<EntityValue<'static>>());
const TEXT_BYTES: usize = GROWTH * (size_of::<String>() + size_of::<usize>() * 3);
const ENTRY_BYTES: usize = 512;

/// The numbers of the fields of a value that are bytes or text. They take no more memory than in the message.
const BYTES_AND_TEXT_FIELDS: [u64; 2] = [1, 2];

/// Returns the maximum memory of a decoded `GetOnlineFeaturesRequest`, in bytes.
pub(super) fn lookup_bytes(message: &[u8]) -> usize {
    let fields = Fields(message).map(|(field, payload)| match field {
        2 => Fields(payload).map(|(_, text)| TEXT_BYTES + text.len()).sum(),
        3 | 5 => ENTRY_BYTES + Fields(payload).map(column_bytes).sum::<usize>(),
        _ => payload.len(),
    });
    message.len() + fields.sum::<usize>()
}

/// Returns the maximum memory of a decoded `PushRequest` or `WriteToOnlineStoreRequest`, with its prefix, in bytes. The
/// columns are either text or values.
pub(super) fn row_bytes(message: &[u8]) -> usize {
    let columns = Fields(message.get(PREFIX_BYTES..).unwrap_or_default()).map(|(field, payload)| match field {
        // `typed_features` is field 4 of a `WriteToOnlineStoreRequest`, and field 5 of a `PushRequest`. Field 4 of a
        // `PushRequest` is `to`, which is short.
        4 | 5 => ENTRY_BYTES + Fields(payload).map(|(_, value)| value.len() + value_bytes(value)).sum::<usize>(),
        _ => ENTRY_BYTES + payload.len(),
    });
    message.len() + columns.sum::<usize>()
}

/// Returns the memory of one field of a column's map entry: of the column's name (field 1), or of its values (field 2).
fn column_bytes((field, payload): (u64, &[u8])) -> usize {
    if field == 2 { Fields(payload).map(|(_, value)| VALUE_BYTES + value_bytes(value)).sum() } else { payload.len() }
}

fn value_bytes(value: &[u8]) -> usize {
    let of_field = |(field, payload): (u64, &[u8])| {
        if BYTES_AND_TEXT_FIELDS.contains(&field) { payload.len() } else { payload.len() * (VALUE_BYTES / 2) }
    };
    Fields(value).map(of_field).sum()
}

/// Iterates over the fields of a message. Returns the number and the bytes of each field; no bytes for a varint. Ends
/// at invalid data.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = (u64, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let length = match tag & 7 {
            0 => {
                self.varint()?;
                0
            }
            1 => 8,
            2 => usize::try_from(self.varint()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (payload, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((tag >> 3, payload))
    }
}

#[cfg(test)]
mod tests {
    use larder_model::model::{Kind, RepeatedValue, StringList};
    use prost::Message;

    use super::*;
    use crate::{
        proto::feast::serving::{FeatureList, GetOnlineFeaturesRequest, get_online_features_request::Kind as Asked},
        request,
    };

    #[test]
    fn decoded_messages_stay_within_estimate() {
        let of = |kind| vec![FeastValue { kind }; 20_000];
        let list = |val| Some(Kind::StringList(StringList { val }));
        let nested = Some(Kind::List(RepeatedValue { val: vec![FeastValue { kind: None }; 50] }));
        for values in [
            of(None),
            of(Some(Kind::Int64(7))),
            of(Some(Kind::String(String::new()))),
            of(Some(Kind::String("some text".to_owned()))),
            of(list(vec![String::new(); 20])),
            of(list(Vec::new())),
            of(nested),
        ] {
            let features = FeatureList { val: vec!["a:b".to_owned(); 5_000] };
            let mut message = GetOnlineFeaturesRequest { kind: Some(Asked::Features(features)), ..Default::default() };
            message.entities.insert("k".to_owned(), RepeatedValue { val: values });
            let bytes = message.encode_to_vec();
            let counted = allocation_counter::measure(|| {
                let message = GetOnlineFeaturesRequest::decode(&*bytes).unwrap();
                drop(request::translate(&message).unwrap());
            });
            let expected = lookup_bytes(&bytes);
            assert!(usize::try_from(counted.bytes_max).unwrap() <= expected, "{} of {expected}", counted.bytes_max);
        }
    }

    #[test]
    fn invalid_message_counts_only_its_bytes() {
        assert_eq!(lookup_bytes(&[0xff; 100]), 100);
        assert_eq!(lookup_bytes(&[0x12, 0x7f, 1]), 3);
    }
}
