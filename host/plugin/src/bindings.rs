//! Types that `bindgen!` generates from each version of the contract. They are private to this crate.

pub(super) use v1::larder::transform::{host::Level, types};

/// Version 0.1, which passes columns as typed vectors.
pub(super) mod v1 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}

/// Version 0.2, which passes columns as one block of bytes. Both versions share the Rust types of `types`.
pub(super) mod v2 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
        with: { "larder:transform/types@0.2.0": super::v1::larder::transform::types },
    });
}

/// Version 0.3, in which a plugin names the rows that it cannot compute. Its types differ from those of the other versions.
pub(super) mod v3 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.3.0",
        world: "derived-features",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}
