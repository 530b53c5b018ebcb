//! Feast's own value message, for nested values and for data that Feast wrote.
//!
//! The messages and field numbers are the same as in `feast/types/Value.proto` (Feast 0.67). A nested value, such as a
//! map or a zoned timestamp, is kept in a row as the bytes of a [`FeastValue`].

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// `feast.types.Value`: any value; null if `kind` is absent.
#[derive(Clone, PartialEq, Message)]
pub struct FeastValue {
    /// The value, by type.
    #[prost(
        oneof = "Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, \
                32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 48"
    )]
    pub kind: Option<Kind>,
}

/// The `val` oneof of `feast.types.Value`. `SCALAR_MAP` (47) is left out: Feast serves it as null.
#[derive(Clone, PartialEq, Oneof)]
#[expect(missing_docs, reason = "each name is the name of its type")]
pub enum Kind {
    #[prost(bytes = "vec", tag = "1")]
    Bytes(Vec<u8>),
    #[prost(string, tag = "2")]
    String(String),
    #[prost(int32, tag = "3")]
    Int32(i32),
    #[prost(int64, tag = "4")]
    Int64(i64),
    #[prost(double, tag = "5")]
    Double(f64),
    #[prost(float, tag = "6")]
    Float(f32),
    #[prost(bool, tag = "7")]
    Bool(bool),
    /// Seconds since the Unix epoch.
    #[prost(int64, tag = "8")]
    UnixTimestamp(i64),
    #[prost(message, tag = "11")]
    BytesList(BytesList),
    #[prost(message, tag = "12")]
    StringList(StringList),
    #[prost(message, tag = "13")]
    Int32List(Int32List),
    #[prost(message, tag = "14")]
    Int64List(Int64List),
    #[prost(message, tag = "15")]
    DoubleList(DoubleList),
    #[prost(message, tag = "16")]
    FloatList(FloatList),
    #[prost(message, tag = "17")]
    BoolList(BoolList),
    #[prost(message, tag = "18")]
    UnixTimestampList(Int64List),
    #[prost(int32, tag = "19")]
    Null(i32),
    #[prost(message, tag = "20")]
    Map(FeastMap),
    #[prost(message, tag = "21")]
    MapList(FeastMapList),
    #[prost(message, tag = "22")]
    BytesSet(BytesList),
    #[prost(message, tag = "23")]
    StringSet(StringList),
    #[prost(message, tag = "24")]
    Int32Set(Int32List),
    #[prost(message, tag = "25")]
    Int64Set(Int64List),
    #[prost(message, tag = "26")]
    DoubleSet(DoubleList),
    #[prost(message, tag = "27")]
    FloatSet(FloatList),
    #[prost(message, tag = "28")]
    BoolSet(BoolList),
    #[prost(message, tag = "29")]
    UnixTimestampSet(Int64List),
    #[prost(string, tag = "32")]
    Json(String),
    #[prost(message, tag = "33")]
    JsonList(StringList),
    #[prost(message, tag = "34")]
    Struct(FeastMap),
    #[prost(message, tag = "35")]
    StructList(FeastMapList),
    #[prost(string, tag = "36")]
    Uuid(String),
    #[prost(string, tag = "37")]
    TimeUuid(String),
    #[prost(message, tag = "38")]
    UuidList(StringList),
    #[prost(message, tag = "39")]
    TimeUuidList(StringList),
    #[prost(message, tag = "40")]
    UuidSet(StringList),
    #[prost(message, tag = "41")]
    TimeUuidSet(StringList),
    #[prost(message, tag = "42")]
    List(RepeatedValue),
    #[prost(message, tag = "43")]
    Set(RepeatedValue),
    #[prost(string, tag = "44")]
    Decimal(String),
    #[prost(message, tag = "45")]
    DecimalList(StringList),
    #[prost(message, tag = "46")]
    DecimalSet(StringList),
    #[prost(message, tag = "48")]
    ZonedTimestamp(ZonedTimestamp),
}

macro_rules! repeated {
    ($($(#[$doc:meta])* $name:ident: $item:ty = $prost:tt;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name {
            /// The items.
            #[prost($prost, repeated, tag = "1")]
            pub val: Vec<$item>,
        }
    )*};
}

repeated! {
    /// `feast.types.StringList`, and all other lists and sets of text, which have the same field.
    StringList: String = string;
    /// `feast.types.Int32List` and `Int32Set`.
    Int32List: i32 = int32;
    /// `feast.types.Int64List` and `Int64Set`.
    Int64List: i64 = int64;
    /// `feast.types.DoubleList` and `DoubleSet`.
    DoubleList: f64 = double;
    /// `feast.types.FloatList` and `FloatSet`.
    FloatList: f32 = float;
    /// `feast.types.BoolList` and `BoolSet`.
    BoolList: bool = bool;
    /// `feast.types.MapList`.
    FeastMapList: FeastMap = message;
    /// `feast.types.RepeatedValue`.
    RepeatedValue: FeastValue = message;
}

/// `feast.types.BytesList` and `BytesSet`.
#[derive(Clone, PartialEq, Message)]
pub struct BytesList {
    /// The items.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub val: Vec<Vec<u8>>,
}

/// `feast.types.Map`. Keys are sorted, so that equal maps have equal bytes.
#[derive(Clone, PartialEq, Message)]
pub struct FeastMap {
    /// The entries.
    #[prost(btree_map = "string, message", tag = "1")]
    pub val: BTreeMap<String, FeastValue>,
}

/// `feast.types.ZonedTimestamp`.
#[derive(Clone, PartialEq, Message)]
pub struct ZonedTimestamp {
    /// Seconds since the Unix epoch.
    #[prost(int64, tag = "1")]
    pub unix_timestamp: i64,
    /// An IANA zone name or a fixed offset such as `+02:00`.
    #[prost(string, tag = "2")]
    pub zone: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_bytes_equal_feast() {
        // Taken from Feast's DynamoDB items for `customer_stats` of CUST_000123.
        let float = FeastValue { kind: Some(Kind::Float(0.1)) };
        assert_eq!(float.encode_to_vec(), [0x35, 0xcd, 0xcc, 0xcc, 0x3d]);
        let flag = FeastValue { kind: Some(Kind::Bool(true)) };
        assert_eq!(flag.encode_to_vec(), [0x38, 0x01]);
        let tags = StringList { val: vec!["a".into(), "b".into(), String::new()] };
        let tags = FeastValue { kind: Some(Kind::StringList(tags)) };
        assert_eq!(tags.encode_to_vec(), [0x62, 0x08, 0x0a, 0x01, 0x61, 0x0a, 0x01, 0x62, 0x0a, 0x00]);
        assert!(FeastValue { kind: None }.encode_to_vec().is_empty());
    }
}
