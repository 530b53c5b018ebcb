//! What `bindgen!` makes of the contract, of each of its versions. Nothing outside this room sees these types.

pub(super) use v1::larder::transform::{host::Level, types};

/// Columns cross as typed vectors.
pub(super) mod v1 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}

/// Columns cross in one piece. What both versions have is one type in Rust.
pub(super) mod v2 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
        with: { "larder:transform/types@0.2.0": super::v1::larder::transform::types },
    });
}
