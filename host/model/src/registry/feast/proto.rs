//! The messages of a Feast registry, with the fields that Larder reads.
//!
//! Names and field numbers are the same as in `feast/core/*.proto` (Feast 0.67). Fields that are left out here are not
//! decoded. `fields.rs` lists the effect of each of these fields, and detects fields that a newer Feast adds.
//! Enumerations are decoded as plain numbers, so an unknown number is a valid value. If only the presence of a message
//! matters, the message is decoded as bytes.

use std::{collections::HashMap, time::Duration};

use prost::{Message, Oneof};

use crate::model::Micros;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = ($($prost:tt)*));* $(;)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct $name {
            $(#[prost($($prost)*)] pub(super) $field: $type,)*
        }
    )*};
}

messages! {
    /// `feast.core.Registry`: the whole file.
    Registry {
        entities: Vec<Entity> = (message, repeated, tag = "1");
        registry_schema_version: String = (string, tag = "3");
        version_id: String = (string, tag = "4");
        feature_views: Vec<FeatureView> = (message, repeated, tag = "6");
        feature_services: Vec<FeatureService> = (message, repeated, tag = "7");
        on_demand_feature_views: Vec<OnDemandFeatureView> = (message, repeated, tag = "8");
        stream_feature_views: Vec<StreamFeatureView> = (message, repeated, tag = "14");
        label_views: Vec<LabelView> = (message, repeated, tag = "19");
    }

    /// `feast.core.Entity`.
    Entity { spec: Option<EntitySpec> = (message, optional, tag = "1") }

    /// `feast.core.EntitySpecV2`.
    EntitySpec {
        name: String = (string, tag = "1");
        value_type: i32 = (int32, tag = "2");
        description: String = (string, tag = "3");
        join_key: String = (string, tag = "4");
        tags: HashMap<String, String> = (map = "string, string", tag = "8");
        project: String = (string, tag = "9");
    }

    /// `feast.core.FeatureSpecV2`.
    FeatureSpec {
        name: String = (string, tag = "1");
        value_type: i32 = (int32, tag = "2");
        tags: HashMap<String, String> = (map = "string, string", tag = "3");
        description: String = (string, tag = "4");
    }

    /// `feast.core.FeatureView`.
    FeatureView {
        spec: Option<FeatureViewSpec> = (message, optional, tag = "1");
        meta: Option<FeatureViewMeta> = (message, optional, tag = "2");
    }

    /// `feast.core.FeatureViewMeta`.
    FeatureViewMeta {
        created_timestamp: Option<Span> = (message, optional, tag = "1");
        current_version_number: i32 = (int32, tag = "4");
        state: i32 = (int32, tag = "6");
    }

    /// `feast.core.FeatureViewSpec`.
    FeatureViewSpec {
        name: String = (string, tag = "1");
        project: String = (string, tag = "2");
        entities: Vec<String> = (string, repeated, tag = "3");
        features: Vec<FeatureSpec> = (message, repeated, tag = "4");
        tags: HashMap<String, String> = (map = "string, string", tag = "5");
        ttl: Option<Span> = (message, optional, tag = "6");
        batch_source: Option<DataSource> = (message, optional, tag = "7");
        online: bool = (bool, tag = "8");
        stream_source: Option<DataSource> = (message, optional, tag = "9");
        description: String = (string, tag = "10");
        entity_columns: Vec<FeatureSpec> = (message, repeated, tag = "12");
        source_views: Vec<Vec<u8>> = (bytes = "vec", repeated, tag = "14");
        feature_transformation: Option<Vec<u8>> = (bytes = "vec", optional, tag = "15");
        disabled: bool = (bool, tag = "20");
    }

    /// `feast.core.StreamFeatureView`.
    StreamFeatureView {
        spec: Option<StreamFeatureViewSpec> = (message, optional, tag = "1");
        meta: Option<FeatureViewMeta> = (message, optional, tag = "2");
    }

    /// `feast.core.StreamFeatureViewSpec`: the fields of a feature view, with other numbers.
    StreamFeatureViewSpec {
        name: String = (string, tag = "1");
        project: String = (string, tag = "2");
        entities: Vec<String> = (string, repeated, tag = "3");
        features: Vec<FeatureSpec> = (message, repeated, tag = "4");
        entity_columns: Vec<FeatureSpec> = (message, repeated, tag = "5");
        description: String = (string, tag = "6");
        tags: HashMap<String, String> = (map = "string, string", tag = "7");
        ttl: Option<Span> = (message, optional, tag = "9");
        batch_source: Option<DataSource> = (message, optional, tag = "10");
        stream_source: Option<DataSource> = (message, optional, tag = "11");
        online: bool = (bool, tag = "12");
        user_defined_function: Option<Vec<u8>> = (bytes = "vec", optional, tag = "13");
        aggregations: Vec<Vec<u8>> = (bytes = "vec", repeated, tag = "15");
        feature_transformation: Option<Vec<u8>> = (bytes = "vec", optional, tag = "17");
        disabled: bool = (bool, tag = "23");
    }

    /// `feast.core.LabelView`: labels that people or tools assigned to an entity.
    LabelView { spec: Option<LabelViewSpec> = (message, optional, tag = "1") }

    /// `feast.core.LabelViewSpec`. In the online store, the last label wins, as in any other view.
    LabelViewSpec {
        name: String = (string, tag = "1");
        project: String = (string, tag = "2");
        entities: Vec<String> = (string, repeated, tag = "3");
        features: Vec<FeatureSpec> = (message, repeated, tag = "4");
        tags: HashMap<String, String> = (map = "string, string", tag = "5");
        ttl: Option<Span> = (message, optional, tag = "6");
        source: Option<DataSource> = (message, optional, tag = "7");
        online: bool = (bool, tag = "8");
        description: String = (string, tag = "9");
        entity_columns: Vec<FeatureSpec> = (message, repeated, tag = "11");
    }

    /// `feast.core.FeatureService`.
    FeatureService { spec: Option<FeatureServiceSpec> = (message, optional, tag = "1") }

    /// `feast.core.FeatureServiceSpec`.
    FeatureServiceSpec {
        name: String = (string, tag = "1");
        project: String = (string, tag = "2");
        features: Vec<Projection> = (message, repeated, tag = "3");
        tags: HashMap<String, String> = (map = "string, string", tag = "4");
        description: String = (string, tag = "5");
    }

    /// `feast.core.FeatureViewProjection`.
    Projection {
        feature_view_name: String = (string, tag = "1");
        feature_columns: Vec<FeatureSpec> = (message, repeated, tag = "2");
        feature_view_name_alias: String = (string, tag = "3");
        join_key_map: HashMap<String, String> = (map = "string, string", tag = "4");
    }

    /// `feast.core.OnDemandFeatureView`.
    OnDemandFeatureView {
        spec: Option<OnDemandFeatureViewSpec> = (message, optional, tag = "1");
        meta: Option<OnDemandFeatureViewMeta> = (message, optional, tag = "2");
    }

    /// `feast.core.OnDemandFeatureViewMeta`: fields of `FeatureViewMeta`, with other numbers.
    OnDemandFeatureViewMeta {
        current_version_number: i32 = (int32, tag = "3");
        state: i32 = (int32, tag = "5");
    }

    /// `feast.core.OnDemandFeatureViewSpec`.
    OnDemandFeatureViewSpec {
        name: String = (string, tag = "1");
        project: String = (string, tag = "2");
        features: Vec<FeatureSpec> = (message, repeated, tag = "3");
        sources: HashMap<String, OnDemandSource> = (map = "string, message", tag = "4");
        user_defined_function: Option<UserDefinedFunction> = (message, optional, tag = "5");
        description: String = (string, tag = "6");
        tags: HashMap<String, String> = (map = "string, string", tag = "7");
        feature_transformation: Option<Transformation> = (message, optional, tag = "10");
        mode: String = (string, tag = "11");
        write_to_online_store: bool = (bool, tag = "12");
        entities: Vec<String> = (string, repeated, tag = "13");
        entity_columns: Vec<FeatureSpec> = (message, repeated, tag = "14");
        aggregations: Vec<Vec<u8>> = (bytes = "vec", repeated, tag = "16");
        disabled: bool = (bool, tag = "19");
    }

    /// `feast.core.FeatureTransformationV2`; only Python is read.
    Transformation { user_defined_function: Option<UserDefinedFunction> = (message, optional, tag = "1") }

    /// `feast.core.UserDefinedFunctionV2`. The body is a pickle, which Larder does not load.
    UserDefinedFunction {
        name: String = (string, tag = "1");
        body_text: String = (string, tag = "3");
    }

    /// `feast.core.DataSource`.
    DataSource {
        kind: i32 = (int32, tag = "1");
        field_mapping: HashMap<String, String> = (map = "string, string", tag = "2");
        timestamp_field: String = (string, tag = "3");
        created_timestamp_column: String = (string, tag = "5");
        file_options: Option<FileOptions> = (message, optional, tag = "11");
        data_source_class_type: String = (string, tag = "17");
        request_data_options: Option<RequestDataOptions> = (message, optional, tag = "18");
        name: String = (string, tag = "20");
    }

    /// `feast.core.DataSource.FileOptions`.
    FileOptions {
        uri: String = (string, tag = "2");
        s3_endpoint_override: String = (string, tag = "3");
    }

    /// `feast.core.DataSource.RequestDataOptions`.
    RequestDataOptions { schema: Vec<FeatureSpec> = (message, repeated, tag = "3") }

    /// `google.protobuf.Duration` or `google.protobuf.Timestamp`, which have the same fields.
    Span {
        seconds: i64 = (int64, tag = "1");
        nanos: i32 = (int32, tag = "2");
    }
}

/// `feast.core.OnDemandSource`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OnDemandSource {
    #[prost(oneof = "SourceOf", tags = "1, 2, 3")]
    pub(super) source: Option<SourceOf>,
}

/// An input of an on-demand view.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum SourceOf {
    /// A whole view, as older versions of Feast write it.
    #[prost(message, tag = "1")]
    View(Box<FeatureView>),
    /// Data of the request.
    #[prost(message, tag = "2")]
    Request(DataSource),
    /// Some features of a view.
    #[prost(message, tag = "3")]
    Projection(Projection),
}

/// The numbers of the fields of [`Registry`] that list definitions.
pub(super) const ENTITIES: u32 = 1;
/// See [`ENTITIES`].
pub(super) const FEATURE_VIEWS: u32 = 6;
/// See [`ENTITIES`].
pub(super) const FEATURE_SERVICES: u32 = 7;
/// See [`ENTITIES`].
pub(super) const ON_DEMAND_FEATURE_VIEWS: u32 = 8;
/// See [`ENTITIES`].
pub(super) const STREAM_FEATURE_VIEWS: u32 = 14;
/// See [`ENTITIES`].
pub(super) const LABEL_VIEWS: u32 = 19;

/// The values of `feast.core.DataSource.SourceType` that Larder distinguishes.
pub(super) const BATCH_FILE: i32 = 1;
/// See [`BATCH_FILE`].
pub(super) const PUSH_SOURCE: i32 = 9;

// === impl Span ===

impl Span {
    /// Returns the value as a duration in whole microseconds, as in Feast. Returns `None` if it is zero, negative, or
    /// too long to be added to an instant.
    pub(super) fn duration(&self) -> Option<Duration> {
        let (seconds, nanos) = (u64::try_from(self.seconds).ok()?, u32::try_from(self.nanos).ok()?);
        let micros = i64::try_from(Duration::new(seconds, nanos.min(999_999_999)).as_micros()).ok()?;
        Some(Duration::from_micros(micros.unsigned_abs())).filter(|duration| !duration.is_zero())
    }

    /// Returns the value as an instant in microseconds since 1970. Returns `None` if it is out of range.
    pub(super) fn micros(&self) -> Option<Micros> {
        self.seconds.checked_mul(1_000_000)?.checked_add(i64::from(self.nanos) / 1_000)
    }
}
