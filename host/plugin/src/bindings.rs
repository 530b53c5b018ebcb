//! Types that `bindgen!` generates from each version of the contract. They are private to this crate.

pub(super) use v1::larder::transform::{host::Level, types};

/// Columns are passed as typed vectors.
pub(super) mod v1 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}

/// Columns are passed as one block of bytes. Types that both versions share are one type in Rust.
pub(super) mod v2 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
        with: { "larder:transform/types@0.2.0": super::v1::larder::transform::types },
    });
}
