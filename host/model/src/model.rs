//! The definitions and values of the feature store. This module reads no files and no clock.

mod definition;
mod derived;
mod feast_value;
mod time;
mod value;
mod value_type;
mod window;

pub use self::{
    definition::{
        AwsPlace, Entity, EntityId, Feature, FeatureService, FeatureView, FileSource, Gate, InvalidEntityId,
        JOIN_KEY_DUMMY, JoinKey, OnMiss, Projection, ReadThrough, Source, SourceKind, TableLayout, TableSource, Tags,
        WriteMode,
    },
    derived::{DerivedInput, DerivedView, InputSource, OnError},
    feast_value::{
        BoolList, BytesList, DoubleList, FeastMap, FeastMapList, FeastValue, FloatList, Int32List, Int64List, Kind,
        RepeatedValue, StringList, ZonedTimestamp,
    },
    time::{Micros, NULL_TIMESTAMP_SECONDS, Rfc3339, duration_text, parse_duration, parse_exact_time, parse_time},
    value::{ListRef, Value, ValueRef},
    value_type::{ItemType, NestedType, Physical, ScalarType, UnknownType, ValueType},
    window::Window,
};
