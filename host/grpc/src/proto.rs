//! Feast's messages and services, which `build.rs` generates from `host/grpc/proto/feast`. The types of Feast's values
//! are defined in `larder_model`.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated code; the .proto files have its documentation"
)]

/// Feast's packages.
pub mod feast {
    /// `feast.serving`.
    pub mod serving {
        include!(concat!(env!("OUT_DIR"), "/feast.serving.rs"));
    }
}

include!(concat!(env!("OUT_DIR"), "/_.rs"));

/// The descriptors of the `.proto` files, for reflection.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/feast.bin"));
