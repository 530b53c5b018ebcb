//! gRPC: Feast's services on a separate port, with health and reflection.
//!
//! [`GrpcServer`] accepts connections, and enforces their limits. [`Calls`] reads the message of a call within limits,
//! and routes the call to its service. Lookups and writes are passed to the services of `larder-serving`.

mod answer;
mod calls;
mod error;
mod in_flight;
mod lookup;
mod message;
mod metrics;
pub mod proto;
mod request;
mod server;
mod services;
mod weight;

pub use self::{
    calls::Calls,
    server::{GrpcServer, GrpcServerError},
    services::Services,
};
