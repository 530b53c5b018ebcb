//! The bindings that `wit-bindgen` generates from the contract, or from a world that a Cargo feature selects instead.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unused_imports,
    reason = "generated; the exports are in `raw.rs`, `frames.rs` and `batches.rs`"
)]

#[cfg(not(any(feature = "foreign-import", feature = "wrong-world", feature = "frames", feature = "batches")))]
wit_bindgen::generate!({ path: "../../wit/0.1.0", world: "derived-features" });

#[cfg(feature = "frames")]
wit_bindgen::generate!({ path: "../../wit/0.2.0", world: "derived-features" });

#[cfg(feature = "batches")]
wit_bindgen::generate!({ path: "../../wit/0.3.0", world: "derived-features" });

#[cfg(feature = "foreign-import")]
wit_bindgen::generate!({
    path: ["../../wit/0.1.0", "wit/foreign"],
    world: "larder-hostile:foreign/foreign-import",
    generate_all,
});

#[cfg(feature = "wrong-world")]
mod wrong {
    wit_bindgen::generate!({ path: "wit/wrong", world: "wrong-world" });

    struct Wrong;

    impl Guest for Wrong {
        fn describe() -> String {
            "a plugin with a wrong signature".to_owned()
        }

        fn transform(x: f64) -> f64 {
            2.0 * x
        }
    }

    export!(Wrong);
}
