//! Feast's messages and services, which `build.rs` makes of `host/grpc/proto/feast`; its values are `larder_model`'s.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "made by tonic and prost; the .proto files say what it is"
)]

/// Feast's packages.
pub mod feast {
    /// `feast.serving`.
    pub mod serving {
        include!(concat!(env!("OUT_DIR"), "/feast.serving.rs"));
    }
}

include!(concat!(env!("OUT_DIR"), "/_.rs"));

/// What is in the files, for clients that ask.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/feast.bin"));
