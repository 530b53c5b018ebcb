//! gRPC: Feast's services on a port of their own, beside health and reflection.
//!
//! [`GrpcServer`] owns connections and bounds them; [`Calls`] routes a call to its service and reads its message within
//! its bounds. What a lookup means is serving's: the messages are translated to its request and back. Who is let in is
//! asked of a [`Authorizer`], so that this room knows no tokens.

mod answer;
mod authorizer;
mod calls;
mod config;
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
    authorizer::{Action, Authorizer, Denied, Headers},
    calls::Calls,
    config::{GrpcConfig, GrpcLimits},
    server::{GrpcServer, GrpcServerError},
    services::Features,
};
