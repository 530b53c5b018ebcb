//! The signature of the plugin, for versions 0.1 and 0.2 of the contract.

use crate::bindings::larder::transform::types::{DataType, Field, ScalarType, Signature};

pub(crate) fn signature() -> Signature {
    let field = |name: &str, scalar, is_list, nullable, doc: &str| Field {
        name: name.to_owned(),
        data_type: DataType { scalar, is_list },
        nullable,
        doc: doc.to_owned(),
    };
    let mut inputs = vec![field("x", ScalarType::Float64, false, true, "Any number.")];
    if cfg!(feature = "list-input") {
        inputs.push(field("list", ScalarType::Float64, true, true, "Any numbers."));
    }
    Signature {
        name: "hostile".to_owned(),
        version: "1.0.0".to_owned(),
        doc: "Violates every rule that the host enforces.".to_owned(),
        inputs,
        outputs: vec![
            field("y", ScalarType::Float64, false, false, "Twice the number."),
            field("flag", ScalarType::Bool, false, true, "Whether it is above 0."),
            field("text", ScalarType::Utf8, false, true, "A text."),
            field("items", ScalarType::Float64, true, true, "A list with the number."),
            field("words", ScalarType::Utf8, true, true, "A list of two texts."),
        ],
    }
}
