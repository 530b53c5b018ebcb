//! The macros of `larder-plugin`, whose documentation explains them.

mod fields;
mod plugin;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, ItemFn, Result, parse_macro_input};

/// Makes a struct a plugin's inputs: each field is an input of its name.
#[proc_macro_derive(Inputs)]
pub fn inputs(item: TokenStream) -> TokenStream {
    derive(item, fields::inputs)
}

/// Makes a struct a plugin's outputs: each field is an output of its name.
#[proc_macro_derive(Outputs)]
pub fn outputs(item: TokenStream) -> TokenStream {
    derive(item, fields::outputs)
}

/// Makes a struct of `Column`s the inputs of a plugin by columns.
#[proc_macro_derive(InputColumns)]
pub fn input_columns(item: TokenStream) -> TokenStream {
    derive(item, fields::input_columns)
}

/// Makes a struct with a `Vec` for each output the outputs of a plugin by columns.
#[proc_macro_derive(OutputColumns)]
pub fn output_columns(item: TokenStream) -> TokenStream {
    derive(item, fields::output_columns)
}

/// Makes a function a plugin: `#[plugin(name = "…", version = "1.0.0")]`, and `by = "columns"` for a function of all rows
/// of a batch at once. For tests, the function's name is also the name of a type, which `larder_plugin::testing` takes.
#[proc_macro_attribute]
pub fn plugin(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemFn);
    // The function stays, so that a mistake in the attribute is not followed by complaints about a missing function.
    let made = plugin::plugin(attribute.into(), &item).unwrap_or_else(|error| error.to_compile_error());
    quote::quote!(#item #made).into()
}

fn derive(item: TokenStream, make: impl Fn(&DeriveInput) -> Result<proc_macro2::TokenStream>) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    make(&item).unwrap_or_else(|error: Error| error.to_compile_error()).into()
}
