//! Fake AWS services for tests. They have behavior that other emulators do not have.
//!
//! [`FakeDynamo`] is a DynamoDB with streams of many shards. A test can split, close and trim these shards, and script
//! faults. Other DynamoDB emulators have a single permanent shard. [`FakeS3`] can replace an object between two reads
//! of it. [`FaultProxy`] runs in front of any HTTP/1.1 server and simulates faults of networks and of AWS. Each server
//! runs on its own thread with its own runtime, so both blocking and async tests can use it.

mod dynamo;
mod proxy;
mod s3;
mod serve;

pub use self::{
    dynamo::{FakeDynamo, ShardInfo},
    proxy::{Fault, FaultProxy, Match, When},
    s3::{FakeS3, S3Call},
};
