//! gRPC: Feast's services on a separate port, with health and reflection.
//!
//! [`GrpcServer`] owns connections and limits them. [`Calls`] routes a call to its service, and reads its message
//! within limits. Lookups and writes are passed to the services of `larder-serving`.

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
