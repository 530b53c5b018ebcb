//! What `bindgen!` makes of the contract. Nothing outside this room sees these types.

wasmtime::component::bindgen!({
    path: "../wit/0.1.0",
    world: "derived-features",
    imports: { default: trappable },
    additional_derives: [PartialEq],
});
