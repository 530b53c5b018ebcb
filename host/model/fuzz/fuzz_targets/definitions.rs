//! Checks that arbitrary text as definitions results in a catalog or in errors, and never in a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use larder_model::{ codec::KeyVersion, registry::{Definitions, validate}, yaml::Problems, };

fuzz_target!(|text: &str| {
    let problems = Problems::default();
    let mut definitions = Definitions::default();
    definitions.read("fuzz.yaml", text, &problems);
    let before = problems.has_errors();
    let catalog = validate("fuzz", KeyVersion::V3, definitions, &problems);
    assert!(catalog.is_some() || before || problems.has_errors(), "no catalog and no error");
});
