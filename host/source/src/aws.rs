//! AWS: clients for its services, and the runtime for their connections.
//!
//! This module does not depend on the operations that use it. [`Aws`] creates clients on demand, with timeouts that the
//! SDK leaves unset, and has its own runtime for their connections. Callers are either threads that may block, or tasks
//! that run on this runtime and send their results to another runtime. The runtime and the clients are created on first
//! use, so a server that does not use AWS has none.
//!
//! A build without the feature `aws` has the settings, the errors and the names of objects, and an [`Aws`] without
//! clients.

#[cfg(feature = "aws")]
mod client;
mod error;
#[cfg(feature = "aws")]
mod limit;
#[cfg(not(feature = "aws"))]
mod no_client;
mod object;
#[cfg(feature = "aws")]
mod read_object;
#[cfg(feature = "aws")]
mod sdk_error;
#[cfg(feature = "aws")]
mod upload_object;
#[cfg(feature = "aws")]
mod write_object;

use std::time::Duration;

#[cfg(not(feature = "aws"))]
pub use self::no_client::{Aws, ObjectUpload};
#[cfg(feature = "aws")]
pub use self::{
    client::{Aws, Dynamo},
    upload_object::ObjectUpload,
};
pub use self::{
    error::{AwsError, AwsErrorKind},
    object::{ObjectAt, ObjectNow},
};

/// The connection settings of AWS. If a setting is `None`, its value is found as in every AWS tool: in environment
/// variables, in the shared configuration files, or from the role of the pod or machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsConfig {
    /// The region; if `None`, the region of the environment.
    pub region: Option<String>,
    /// A profile in the shared configuration files.
    pub profile: Option<String>,
    /// The endpoint of S3, instead of AWS's own.
    pub s3_endpoint: Option<String>,
    /// The endpoint of DynamoDB and its streams, instead of AWS's own.
    pub dynamodb_endpoint: Option<String>,
    /// Whether the bucket name is in the path, as most servers other than AWS require, instead of in the host name.
    pub s3_path_style: bool,
    /// The maximum time to establish a connection.
    pub connect_timeout: Duration,
    /// The maximum time of one attempt.
    pub attempt_timeout: Duration,
    /// The maximum time of all attempts at one operation.
    pub operation_timeout: Duration,
    /// The maximum number of attempts at one operation. If all attempts fail, the operation fails.
    pub attempts_max: u32,
    /// Dummy keys, for servers that emulate AWS. If `None`, the default chain finds the keys. No setting in a
    /// configuration file sets this, because keys do not belong there.
    pub keys: Option<StandInKeys>,
}

/// Dummy keys, which are accepted by servers that emulate AWS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandInKeys;

impl Default for AwsConfig {
    fn default() -> Self {
        Self {
            region: None,
            profile: None,
            s3_endpoint: None,
            dynamodb_endpoint: None,
            s3_path_style: false,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            attempts_max: 3,
            keys: None,
        }
    }
}
