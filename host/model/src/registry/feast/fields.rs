//! The table of all fields of Feast's registry, with the effect of each field in Larder.
//!
//! A registry may set a field that changes responses, such as a transformation, a table format or a pinned version. A
//! parser that does not know the field would ignore it without an error. So the table has an entry for each field of
//! each message that matters. [`audit`] scans the bytes of a message and reports the fields that are set but not
//! supported. A field without an entry is from a newer Feast, and its effect is unknown.
//!
//! `testdata/fields.txt` lists the fields of Feast's own descriptors. Unit tests check that each message of the table
//! has the same fields as in the file, and that each field has the effect that the table specifies. An integration test
//! compares the file with the installed Feast.

use super::wire::{self, Value};

/// The effect of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// Larder reads the field, and served values depend on it.
    Read,
    /// The field is a message, and each field of that message has its own effect.
    Inside(&'static Message),
    /// Like [`Effect::Inside`], for a message that describes how a view's rows are produced. If it has settings that
    /// Larder does not support, Larder cannot load or compute the rows. It then serves the view only if Feast writes
    /// the rows to the online store that Larder reads.
    Files(&'static Message),
    /// The field does not change Larder's online responses. The text is the reason.
    Unused(#[cfg_attr(not(test), expect(dead_code, reason = "documents the table"))] &'static str),
    /// Definitions that set the field are not served. The text is the reason.
    Refused(&'static str),
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the table"))]
    pub(super) name: &'static str,
    pub(super) effect: Effect,
}

/// The fields of one Feast message in one context. The same message can have several tables, because the effect of a
/// field depends on the context.
#[derive(Debug)]
pub(super) struct Message {
    /// The full name of the message.
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field that is set but not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The reason why the field is not supported.
    pub(super) why: String,
    /// Whether the field is not in the table.
    pub(super) is_unknown: bool,
    /// Whether the field only affects how rows are produced.
    pub(super) in_files: bool,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $table:ident = $name:literal { $($number:literal $field:ident: $effect:expr;)* })*) => {$(
        $(#[$doc])*
        pub(super) static $table: Message = Message {
            name: $name,
            fields: &[$(Field { number: $number, name: stringify!($field), effect: $effect }),*],
        };
    )*};
}

use Effect::{Files, Inside, Read, Refused, Unused};

const OWNER: Effect = Unused("it names a person or a team");
const TIMES: Effect = Unused("it is the time at which the definition was written");
const ENGINE: Effect = Unused("it selects the engine that runs the transformation, and Larder runs none");
const TRAINING: Effect = Unused("it is for training sets");
const VECTORS: Effect = Unused("it is for similarity search; a lookup returns the same value");
const VERSION_PIN: Effect = Unused("Feast writes the pinned version in place of the current definition");
const VERSION_ID: Effect = Unused("it identifies a version; the number names its table");
const COPIES: Effect = Unused("views carry copies of the parts that they use");
const BODY: Effect = Unused("it is Python, which Larder does not run");
const NAME_ONLY: Effect = Unused("the view is looked up by its name");

messages! {
    /// The whole registry file.
    REGISTRY = "feast.core.Registry" {
        1 entities: Inside(&ENTITY);
        2 feature_tables: Unused("Feast has not read them since version 0.20");
        3 registry_schema_version: Unused("it distinguishes a registry from other files");
        4 version_id: Unused("it distinguishes a registry from other files");
        5 last_updated: TIMES;
        6 feature_views: Inside(&FEATURE_VIEW);
        7 feature_services: Inside(&SERVICE);
        8 on_demand_feature_views: Inside(&ON_DEMAND_VIEW);
        10 infra: Unused("it lists the infrastructure that Feast created");
        11 saved_datasets: TRAINING;
        12 data_sources: COPIES;
        13 validation_references: TRAINING;
        14 stream_feature_views: Inside(&STREAM_VIEW);
        15 project_metadata: Unused("it names projects; their definitions carry the name too");
        16 permissions: Unused("clients are authorized by Larder's own tokens; 'auth' is reported");
        17 projects: Unused("it names projects; their definitions carry the name too");
        18 feature_view_version_history: Unused("only the current version of a view is served");
        19 label_views: Inside(&LABEL_VIEW);
    }

    ENTITY = "feast.core.Entity" { 1 spec: Inside(&ENTITY_SPEC); 2 meta: TIMES; }

    ENTITY_SPEC = "feast.core.EntitySpecV2" {
        1 name: Read;
        2 value_type: Read;
        3 description: Read;
        4 join_key: Read;
        8 tags: Read;
        9 project: Read;
        10 owner: OWNER;
    }

    FEATURE_VIEW = "feast.core.FeatureView" { 1 spec: Inside(&VIEW_SPEC); 2 meta: Inside(&VIEW_META); }

    VIEW_META = "feast.core.FeatureViewMeta" {
        1 created_timestamp: Read;
        2 last_updated_timestamp: TIMES;
        3 materialization_intervals: Unused("Larder keeps its own positions");
        4 current_version_number: Read;
        5 version_id: VERSION_ID;
        6 state: Read;
    }

    VIEW_SPEC = "feast.core.FeatureViewSpec" {
        1 name: Read;
        2 project: Read;
        3 entities: Read;
        4 features: Inside(&FEATURE);
        5 tags: Read;
        6 ttl: Read;
        7 batch_source: Files(&BATCH_SOURCE);
        8 online: Read;
        9 stream_source: Inside(&STREAM_SOURCE);
        10 description: Read;
        11 owner: OWNER;
        12 entity_columns: Inside(&KEY_COLUMN);
        13 offline: TRAINING;
        14 source_views: Read;
        15 feature_transformation: Read;
        16 mode: ENGINE;
        17 enable_validation: Unused("Larder checks the columns of every file, whether or not it is set");
        18 version: VERSION_PIN;
        19 org: OWNER;
        20 disabled: Read;
    }

    STREAM_VIEW = "feast.core.StreamFeatureView" { 1 spec: Inside(&STREAM_VIEW_SPEC); 2 meta: Inside(&VIEW_META); }

    STREAM_VIEW_SPEC = "feast.core.StreamFeatureViewSpec" {
        1 name: Read;
        2 project: Read;
        3 entities: Read;
        4 features: Inside(&FEATURE);
        5 entity_columns: Inside(&KEY_COLUMN);
        6 description: Read;
        7 tags: Read;
        8 owner: OWNER;
        9 ttl: Read;
        10 batch_source: Files(&BATCH_SOURCE);
        11 stream_source: Inside(&STREAM_SOURCE);
        12 online: Read;
        13 user_defined_function: Read;
        14 mode: ENGINE;
        15 aggregations: Read;
        16 timestamp_field: Unused("it is for aggregations over a stream, which Larder does not compute");
        17 feature_transformation: Read;
        18 enable_tiling: Unused("it is for aggregations over a stream, which Larder does not compute");
        19 tiling_hop_size: Unused("it is for aggregations over a stream, which Larder does not compute");
        20 enable_validation: Unused("Larder checks the columns of every file, whether or not it is set");
        21 version: VERSION_PIN;
        22 org: OWNER;
        23 disabled: Read;
    }

    LABEL_VIEW = "feast.core.LabelView" { 1 spec: Inside(&LABEL_VIEW_SPEC); 2 meta: TIMES; }

    LABEL_VIEW_SPEC = "feast.core.LabelViewSpec" {
        1 name: Read;
        2 project: Read;
        3 entities: Read;
        4 features: Inside(&FEATURE);
        5 tags: Read;
        6 ttl: Read;
        7 source: Inside(&STREAM_SOURCE);
        8 online: Read;
        9 description: Read;
        10 owner: OWNER;
        11 entity_columns: Inside(&KEY_COLUMN);
        12 labeler_field: TRAINING;
        13 conflict_policy: Unused("in the online store, Feast always keeps the last label, regardless of the policy");
        14 retain_history: TRAINING;
        15 reference_feature_view: Unused("it names the view that the labels are about");
    }

    FEATURE = "feast.core.FeatureSpecV2" {
        1 name: Read;
        2 value_type: Read;
        3 tags: Read;
        4 description: Read;
        5 vector_index: VECTORS;
        6 vector_search_metric: VECTORS;
        7 vector_length: VECTORS;
    }

    /// A key column. Its other settings are in the entity.
    KEY_COLUMN = "feast.core.FeatureSpecV2" {
        1 name: Read;
        2 value_type: Read;
        3 tags: Unused("Larder shows the entity's tags");
        4 description: Unused("Larder shows the entity's description");
        5 vector_index: VECTORS;
        6 vector_search_metric: VECTORS;
        7 vector_length: VECTORS;
    }

    /// A field of a request.
    REQUEST_FIELD = "feast.core.FeatureSpecV2" {
        1 name: Read;
        2 value_type: Read;
        3 tags: Unused("inputs of plugins have none");
        4 description: Unused("inputs of plugins have none");
        5 vector_index: VECTORS;
        6 vector_search_metric: VECTORS;
        7 vector_length: VECTORS;
    }

    /// A feature that a projection selects from a view. Its other settings are in the view.
    SELECTED = "feast.core.FeatureSpecV2" {
        1 name: Read;
        2 value_type: NAME_ONLY;
        3 tags: NAME_ONLY;
        4 description: NAME_ONLY;
        5 vector_index: VECTORS;
        6 vector_search_metric: VECTORS;
        7 vector_length: VECTORS;
    }

    /// The source from which a view's rows are loaded.
    BATCH_SOURCE = "feast.core.DataSource" {
        1 type: Read;
        2 field_mapping: Read;
        3 timestamp_field: Read;
        4 date_partition_column: Unused("Feast uses it in SQL, and not for files");
        5 created_timestamp_column: Read;
        11 file_options: Inside(&FILE_OPTIONS);
        12 bigquery_options: NOT_FILES;
        13 kafka_options: NOT_FILES;
        14 kinesis_options: NOT_FILES;
        15 redshift_options: NOT_FILES;
        16 custom_options: NOT_FILES;
        17 data_source_class_type: Unused("it is named in messages about sources that are not files");
        18 request_data_options: NOT_FILES;
        19 snowflake_options: NOT_FILES;
        20 name: Unused("views carry copies of their sources");
        21 project: Unused("views carry copies of their sources");
        22 push_options: NOT_FILES;
        23 description: Unused("sources are shown by their path");
        24 tags: Unused("sources are shown by their path; AWS credentials are Larder's own");
        25 owner: OWNER;
        26 batch_source: Unused("Feast copies it into the view");
        27 spark_options: NOT_FILES;
        28 timestamp_field_type: Unused("Feast uses it in SQL, and not for files");
        30 trino_options: NOT_FILES;
        35 athena_options: NOT_FILES;
        50 meta: TIMES;
    }

    FILE_OPTIONS = "feast.core.DataSource.FileOptions" {
        1 file_format: Inside(&FILE_FORMAT);
        2 uri: Read;
        3 s3_endpoint_override: Read;
    }

    FILE_FORMAT = "feast.core.FileFormat" {
        1 parquet_format: Unused("Larder reads Parquet files");
        2 delta_format: Refused("it is a Delta table, but Larder only reads Parquet files");
    }

    /// The source through which rows are pushed to a view.
    STREAM_SOURCE = "feast.core.DataSource" {
        1 type: Read;
        2 field_mapping: PUSHED;
        3 timestamp_field: PUSHED;
        4 date_partition_column: PUSHED;
        5 created_timestamp_column: PUSHED;
        11 file_options: PUSHED;
        12 bigquery_options: PUSHED;
        13 kafka_options: STREAM;
        14 kinesis_options: STREAM;
        15 redshift_options: PUSHED;
        16 custom_options: PUSHED;
        17 data_source_class_type: PUSHED;
        18 request_data_options: PUSHED;
        19 snowflake_options: PUSHED;
        20 name: Read;
        21 project: PUSHED;
        22 push_options: PUSHED;
        23 description: PUSHED;
        24 tags: PUSHED;
        25 owner: OWNER;
        26 batch_source: Unused("Feast copies it into the view");
        27 spark_options: PUSHED;
        28 timestamp_field_type: PUSHED;
        30 trino_options: PUSHED;
        35 athena_options: PUSHED;
        50 meta: TIMES;
    }

    /// The inputs of an on-demand view from a request.
    REQUEST_SOURCE = "feast.core.DataSource" {
        1 type: FROM_REQUEST;
        2 field_mapping: FROM_REQUEST;
        3 timestamp_field: FROM_REQUEST;
        4 date_partition_column: FROM_REQUEST;
        5 created_timestamp_column: FROM_REQUEST;
        11 file_options: FROM_REQUEST;
        12 bigquery_options: FROM_REQUEST;
        13 kafka_options: FROM_REQUEST;
        14 kinesis_options: FROM_REQUEST;
        15 redshift_options: FROM_REQUEST;
        16 custom_options: FROM_REQUEST;
        17 data_source_class_type: FROM_REQUEST;
        18 request_data_options: Inside(&REQUEST_OPTIONS);
        19 snowflake_options: FROM_REQUEST;
        20 name: FROM_REQUEST;
        21 project: FROM_REQUEST;
        22 push_options: FROM_REQUEST;
        23 description: FROM_REQUEST;
        24 tags: FROM_REQUEST;
        25 owner: OWNER;
        26 batch_source: FROM_REQUEST;
        27 spark_options: FROM_REQUEST;
        28 timestamp_field_type: FROM_REQUEST;
        30 trino_options: FROM_REQUEST;
        35 athena_options: FROM_REQUEST;
        50 meta: TIMES;
    }

    REQUEST_OPTIONS = "feast.core.DataSource.RequestDataOptions" {
        2 deprecated_schema: Unused("Feast does not read it any more");
        3 schema: Inside(&REQUEST_FIELD);
    }

    ON_DEMAND_VIEW = "feast.core.OnDemandFeatureView" {
        1 spec: Inside(&ON_DEMAND_SPEC);
        2 meta: Inside(&ON_DEMAND_META);
    }

    ON_DEMAND_META = "feast.core.OnDemandFeatureViewMeta" {
        1 created_timestamp: TIMES;
        2 last_updated_timestamp: TIMES;
        3 current_version_number: Read;
        4 version_id: VERSION_ID;
        5 state: Read;
    }

    ON_DEMAND_SPEC = "feast.core.OnDemandFeatureViewSpec" {
        1 name: Read;
        2 project: Read;
        3 features: Inside(&FEATURE);
        4 sources: Files(&SOURCES_ENTRY);
        5 user_defined_function: BODY;
        6 description: Read;
        7 tags: Read;
        8 owner: OWNER;
        10 feature_transformation: BODY;
        11 mode: Unused("it configures how the Python function is called; Larder calls a plugin instead");
        12 write_to_online_store: Read;
        13 entities: Read;
        14 entity_columns: Inside(&KEY_COLUMN);
        15 singleton: Unused("it configures how the Python function is called; Larder calls a plugin instead");
        16 aggregations: Read;
        17 version: VERSION_PIN;
        18 org: OWNER;
        19 disabled: Read;
    }

    SOURCES_ENTRY = "feast.core.OnDemandFeatureViewSpec.SourcesEntry" {
        1 key: Unused("inputs are named after the view");
        2 value: Inside(&ON_DEMAND_SOURCE);
    }

    ON_DEMAND_SOURCE = "feast.core.OnDemandSource" {
        1 feature_view: Inside(&READ_VIEW);
        2 request_data_source: Inside(&REQUEST_SOURCE);
        3 feature_view_projection: Inside(&INPUT_PROJECTION);
    }

    /// The copy of a view in an on-demand view that an older Feast wrote.
    READ_VIEW = "feast.core.FeatureView" { 1 spec: Inside(&READ_VIEW_SPEC); 2 meta: NAME_ONLY; }

    READ_VIEW_SPEC = "feast.core.FeatureViewSpec" {
        1 name: Read;
        2 project: NAME_ONLY;
        3 entities: NAME_ONLY;
        4 features: Inside(&SELECTED);
        5 tags: NAME_ONLY;
        6 ttl: NAME_ONLY;
        7 batch_source: NAME_ONLY;
        8 online: NAME_ONLY;
        9 stream_source: NAME_ONLY;
        10 description: NAME_ONLY;
        11 owner: OWNER;
        12 entity_columns: NAME_ONLY;
        13 offline: NAME_ONLY;
        14 source_views: NAME_ONLY;
        15 feature_transformation: NAME_ONLY;
        16 mode: NAME_ONLY;
        17 enable_validation: NAME_ONLY;
        18 version: NAME_ONLY;
        19 org: OWNER;
        20 disabled: NAME_ONLY;
    }

    SERVICE = "feast.core.FeatureService" { 1 spec: Inside(&SERVICE_SPEC); 2 meta: TIMES; }

    SERVICE_SPEC = "feast.core.FeatureServiceSpec" {
        1 name: Read;
        2 project: Read;
        3 features: Inside(&PROJECTION);
        4 tags: Read;
        5 description: Read;
        6 owner: OWNER;
        7 logging_config: Unused("it configures the logs of Feast's own servers");
        8 precompute_online: Unused("Feast returns the same values, read from one place");
    }

    /// The features that a service selects from a view.
    PROJECTION = "feast.core.FeatureViewProjection" {
        1 feature_view_name: Read;
        2 feature_columns: Inside(&SELECTED);
        3 feature_view_name_alias: Read;
        4 join_key_map: Read;
        5 timestamp_field: TRAINING;
        6 date_partition_column: TRAINING;
        7 created_timestamp_column: TRAINING;
        8 batch_source: TRAINING;
        9 stream_source: TRAINING;
        10 version_tag: OLD_VERSION;
        11 view_type: NAME_ONLY;
    }

    /// The features that an on-demand view reads from a view.
    INPUT_PROJECTION = "feast.core.FeatureViewProjection" {
        1 feature_view_name: Read;
        2 feature_columns: Inside(&SELECTED);
        3 feature_view_name_alias: Refused("it reads a view under an alias, which Larder does not support for inputs of plugins");
        4 join_key_map: Refused("it maps join keys of a view to other columns, which Larder does not support for inputs of plugins");
        5 timestamp_field: TRAINING;
        6 date_partition_column: TRAINING;
        7 created_timestamp_column: TRAINING;
        8 batch_source: TRAINING;
        9 stream_source: TRAINING;
        10 version_tag: OLD_VERSION;
        11 view_type: NAME_ONLY;
    }
}

const NOT_FILES: Effect = Unused("the source type already gives the reason: Larder loads files only");
const PUSHED: Effect = Unused("rows are pushed under the names that the view declares");
const STREAM: Effect = Unused("Larder reads no stream; it serves the rows that Feast's stream processor writes");
const FROM_REQUEST: Effect = Unused("only the fields of the request are read");
const OLD_VERSION: Effect = Refused("it selects a version of a feature view, but Larder only serves the current one");

// === impl Message ===

impl Message {
    fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// Returns the fields of a message that are set but not supported. Does not report invalid bytes, because the decoder
/// does.
pub(super) fn audit(message: &Message, bytes: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    walk(message, bytes, false, &mut findings);
    findings.dedup();
    findings
}

fn walk(message: &Message, bytes: &[u8], in_files: bool, findings: &mut Vec<Finding>) {
    for (number, value) in wire::fields(bytes) {
        let Some(field) = message.field(number) else {
            let why = unknown(message, number);
            findings.push(Finding { why, is_unknown: true, in_files });
            continue;
        };
        match (field.effect, value) {
            (Effect::Inside(inner), Value::Bytes(bytes)) => walk(inner, bytes, in_files, findings),
            (Effect::Files(inner), Value::Bytes(bytes)) => walk(inner, bytes, true, findings),
            (Effect::Refused(why), _) => findings.push(Finding { why: why.to_owned(), is_unknown: false, in_files }),
            // The decoder reports a field of an unexpected type.
            (Effect::Inside(_) | Effect::Files(_) | Effect::Read | Effect::Unused(_), _) => {}
        }
    }
}

/// Returns the message about a field that is not in the table.
pub(super) fn unknown(message: &Message, number: u32) -> String {
    format!("it sets field {number} of {}, which this version of Larder does not support", message.name)
}

/// Returns a message for each field of the registry itself that is not in the table. For example, a newer Feast may
/// have a list for a new kind of definition.
pub(super) fn unknown_in_registry(bytes: &[u8]) -> Vec<String> {
    let unknown_fields =
        wire::fields(bytes).map(|(number, _)| number).filter(|number| REGISTRY.field(*number).is_none());
    let mut messages: Vec<String> = unknown_fields.map(|number| unknown(&REGISTRY, number)).collect();
    messages.dedup();
    messages
}

#[cfg(test)]
pub(super) mod tests;
