//! AWS for tests, as far as no server that can be had does it.
//!
//! [`FakeDynamo`] is a DynamoDB whose streams have many shards, which split, close, are trimmed and lie as a script says:
//! the servers that imitate DynamoDB have one shard each, for ever. [`FakeS3`] replaces objects
//! while they are read. [`FaultProxy`] stands before any server and does what
//! networks and AWS do on bad days. Each server runs on a thread of its own with a runtime of its own, so blocking and
//! async tests use it alike.

mod dynamo;
mod proxy;
mod s3;
mod serve;

pub use self::{
    dynamo::{FakeDynamo, ShardInfo},
    proxy::{Fault, FaultProxy, Match, When},
    s3::{FakeS3, S3Call},
};
