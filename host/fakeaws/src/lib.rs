//! Fake AWS services for tests, with behavior that other emulators do not have.
//!
//! [`FakeDynamo`] is a DynamoDB whose streams have many shards, which split, close, are trimmed and misbehave as
//! scripted. Other DynamoDB emulators have a single permanent shard. [`FakeS3`] can replace an object while it is read.
//! [`FaultProxy`] runs in front of any server and simulates faults of networks and of AWS. Each server runs on its own
//! thread with its own runtime, so both blocking and async tests can use it.

mod dynamo;
mod proxy;
mod s3;
mod serve;

pub use self::{
    dynamo::{FakeDynamo, ShardInfo},
    proxy::{Fault, FaultProxy, Match, When},
    s3::{FakeS3, S3Call},
};
