//! The macros of `larder-plugin`, whose documentation explains them.

mod fields;
mod plugin;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

/// Makes a struct a plugin's inputs: each field is an input of its name.
#[proc_macro_derive(Inputs)]
pub fn inputs(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    fields::inputs(&item).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a struct a plugin's outputs: each field is an output of its name.
#[proc_macro_derive(Outputs)]
pub fn outputs(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    fields::outputs(&item).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Makes a function a plugin: `#[plugin(name = "…", version = "1.0.0")]`, and `by = "batch"` for a function of all rows
/// at once.
#[proc_macro_attribute]
pub fn plugin(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemFn);
    plugin::plugin(attribute.into(), &item).unwrap_or_else(|error| error.to_compile_error()).into()
}
