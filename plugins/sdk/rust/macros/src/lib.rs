//! The macros of the crate `larder-plugin`. Its documentation describes how to use them.

mod fields;
mod plugin;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, ItemFn, Result, parse_macro_input};

/// Makes a struct the inputs of a plugin. Each field is an input with the field's name.
#[proc_macro_derive(Inputs)]
pub fn inputs(item: TokenStream) -> TokenStream {
    derive(item, fields::inputs)
}

/// Makes a struct the outputs of a plugin. Each field is an output with the field's name.
#[proc_macro_derive(Outputs)]
pub fn outputs(item: TokenStream) -> TokenStream {
    derive(item, fields::outputs)
}

/// Makes a struct of `Column`s the inputs of a plugin with `by = "columns"`.
#[proc_macro_derive(InputColumns)]
pub fn input_columns(item: TokenStream) -> TokenStream {
    derive(item, fields::input_columns)
}

/// Makes a struct with a `Vec` for each output the outputs of a plugin with `by = "columns"`.
#[proc_macro_derive(OutputColumns)]
pub fn output_columns(item: TokenStream) -> TokenStream {
    derive(item, fields::output_columns)
}

/// Makes a function a plugin: `#[plugin(name = "…", version = "1.0.0")]`. With `by = "columns"`, the function gets all
/// rows of a batch at once. For tests, the macro also declares a type with the function's name, which is the type
/// argument of the functions in `larder_plugin::testing`.
#[proc_macro_attribute]
pub fn plugin(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemFn);
    // The function is kept, so that an error in the attribute does not cause more errors about a missing function.
    let made = plugin::plugin(attribute.into(), &item).unwrap_or_else(|error| error.to_compile_error());
    let inline = plugin::inline(&item);
    quote::quote!(#inline #item #made).into()
}

fn derive(item: TokenStream, make: impl Fn(&DeriveInput) -> Result<proc_macro2::TokenStream>) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    make(&item).unwrap_or_else(|error: Error| error.to_compile_error()).into()
}
