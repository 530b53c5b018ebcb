//! AWS for tests, as far as no server that can be had does it.
//!
//! [`FakeDynamo`] is a DynamoDB whose streams have many shards, which split, close, are trimmed and lie as a script says:
//! the servers that imitate DynamoDB have one shard each, for ever. [`FaultProxy`] stands before any server and does what
//! networks and AWS do on bad days.

mod dynamo;
mod proxy;
mod serve;

pub use self::{
    dynamo::{FakeDynamo, ShardInfo},
    proxy::{Fault, FaultProxy, When},
};
