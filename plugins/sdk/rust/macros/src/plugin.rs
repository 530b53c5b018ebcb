//! `#[plugin]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{
    Error, Expr, ExprLit, FnArg, GenericParam, ItemFn, Lit, LitStr, Meta, Result, ReturnType, Token, Type,
    parse::Parser, punctuated::Punctuated, spanned::Spanned,
};

use crate::fields::doc;

/// What stands in the attribute.
struct Words {
    name: String,
    version: String,
    by_columns: bool,
}

/// What a function takes.
struct Shape {
    /// In the function's order.
    arguments: Vec<Argument>,
    config: Option<Type>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Context,
    Config,
    Inputs,
}

/// What the function's name is followed by; the function itself is kept as it is.
pub(crate) fn plugin(attribute: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let Words { name, version, by_columns } = Words::read(attribute)?;
    let Shape { arguments, config } = Shape::of(function)?;
    let (call, visible, doc) = (&function.sig.ident, &function.vis, doc(&function.attrs));
    let arguments = arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(context),
        Argument::Config => quote!(config),
        Argument::Inputs => quote!(inputs),
    });
    let (config_type, read_config, needs) = match &config {
        None => (quote!(()), quote!(::larder_plugin::__private::no_config(json)), quote!()),
        Some(config) => (
            quote!(#config),
            quote_spanned!(config.span()=> ::larder_plugin::__private::read_config::<#config>(json)),
            quote!(::larder_plugin::__needs_config!();),
        ),
    };
    let (fields, run) = if by_columns {
        (quote!(fields_by_columns), quote!(run_by_columns))
    } else {
        (quote!(fields_by_row), quote!(run_by_row))
    };
    // The types of the function's inputs and outputs are what the compiler finds them to be, whatever they are called.
    let function = quote_spanned!(function.sig.span()=> |context, config, inputs| #call(#(#arguments),*));
    Ok(quote! {
        #needs

        /// The plugin as the host sees it; `larder_plugin::testing` takes it.
        #[allow(non_camel_case_types, reason = "it goes by the function's name")]
        #[derive(Clone, Copy, Debug)]
        #visible enum #call {}

        #[allow(unused_variables, reason = "a function need not want everything")]
        const _: () = {
            impl ::larder_plugin::__private::Plugin for #call {
                type Config = #config_type;
                const NAME: &'static str = #name;
                const VERSION: &'static str = #version;
                const DOC: &'static str = #doc;

                fn fields() -> ::larder_plugin::__private::Fields {
                    ::larder_plugin::__private::#fields::<Self::Config, _, _>(#function)
                }

                fn configure(json: &str) -> ::core::result::Result<Self::Config, ::larder_plugin::Fault> {
                    #read_config
                }

                fn transform(
                    config: &Self::Config,
                    context: &::larder_plugin::Context,
                    batch: ::larder_plugin::__private::Batch<'_>,
                ) -> ::core::result::Result<::std::vec::Vec<u8>, ::larder_plugin::Fault> {
                    ::larder_plugin::__private::#run::<Self::Config, _, _>(context, config, batch, #function)
                }
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                use ::larder_plugin::__private::{Instance, bindings, types};

                ::std::thread_local! {
                    static INSTANCE: Instance<<#call as ::larder_plugin::__private::Plugin>::Config> =
                        const { Instance::new() };
                }

                struct Guest;

                impl bindings::Guest for Guest {
                    fn describe() -> types::Signature {
                        ::larder_plugin::__private::describe::<#call>()
                    }

                    fn configure(config: ::std::string::String) -> ::core::result::Result<(), types::Fault> {
                        INSTANCE.with(|instance| instance.configure::<#call>(&config))
                    }

                    fn transform(
                        context: types::Context,
                        rows: u32,
                        inputs: ::std::vec::Vec<u8>,
                    ) -> ::core::result::Result<::std::vec::Vec<u8>, types::Fault> {
                        INSTANCE.with(|instance| instance.transform::<#call>(context, rows, &inputs))
                    }
                }

                bindings::export_component!(Guest with_types_in ::larder_plugin::__private::bindings);
            };
        };
    })
}

// === impl Words ===

impl Words {
    fn read(attribute: TokenStream) -> Result<Self> {
        let (mut name, mut version, mut by_columns) = (None, None, false);
        for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(attribute)? {
            let Meta::NameValue(meta) = &meta else {
                return Err(Error::new(meta.span(), "expected name = \"…\", version = \"…\" or by = \"…\""));
            };
            let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value else {
                return Err(Error::new(meta.value.span(), "expected a text in quotes"));
            };
            if meta.path.is_ident("name") {
                check_name(text)?;
                name = Some(text.value());
            } else if meta.path.is_ident("version") {
                check_version(text)?;
                version = Some(text.value());
            } else if meta.path.is_ident("by") {
                by_columns = match text.value().as_str() {
                    "row" => false,
                    "columns" => true,
                    _ => return Err(Error::new(text.span(), "expected \"row\" or \"columns\"")),
                };
            } else {
                return Err(Error::new(meta.path.span(), "expected name, version or by"));
            }
        }
        let missing = |what: &str| Error::new(Span::call_site(), format!("{what} = \"…\" is missing"));
        Ok(Self {
            name: name.ok_or_else(|| missing("name"))?,
            version: version.ok_or_else(|| missing("version"))?,
            by_columns,
        })
    }
}

/// The contract's rule for names.
fn check_name(text: &LitStr) -> Result<()> {
    let name = text.value();
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::new(text.span(), "a plugin's name is a letter or '_', then letters, digits and '_'"))
}

fn check_version(text: &LitStr) -> Result<()> {
    let version = text.value();
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(is_number) {
        return Ok(());
    }
    Err(Error::new(text.span(), "a version is MAJOR.MINOR.PATCH, for example 1.0.0"))
}

// === impl Shape ===

impl Shape {
    fn of(function: &ItemFn) -> Result<Self> {
        let signature = &function.sig;
        if let Some(asynchronous) = &signature.asyncness {
            return Err(Error::new(asynchronous.span(), "a plugin has nothing to wait for: no async"));
        }
        if let Some(parameter) =
            signature.generics.params.iter().find(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
        {
            return Err(Error::new(
                parameter.span(),
                "the host has no types to choose: lifetimes are all the parameters",
            ));
        }
        if matches!(signature.output, ReturnType::Default) {
            let missing = "a plugin returns its outputs: a struct with #[derive(Outputs)]";
            return Err(Error::new(signature.ident.span(), missing));
        }
        let (mut arguments, mut config) = (Vec::new(), None);
        for input in &signature.inputs {
            let FnArg::Typed(input) = input else {
                return Err(Error::new(input.span(), "a plugin is a function without self"));
            };
            let argument = match &*input.ty {
                Type::Reference(reference) if is_named(&reference.elem, "Context") => Argument::Context,
                Type::Reference(reference) => {
                    config = Some((*reference.elem).clone());
                    Argument::Config
                }
                _ => Argument::Inputs,
            };
            if arguments.contains(&argument) {
                return Err(Error::new(input.span(), argument.twice()));
            }
            arguments.push(argument);
        }
        if !arguments.contains(&Argument::Inputs) {
            let missing = "a plugin takes its inputs: a struct with #[derive(Inputs)], by value";
            return Err(Error::new(signature.ident.span(), missing));
        }
        Ok(Self { arguments, config })
    }
}

fn is_named(of: &Type, name: &str) -> bool {
    let Type::Path(path) = of else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == name)
}

// === impl Argument ===

impl Argument {
    /// What is wrong with two of them.
    fn twice(self) -> &'static str {
        match self {
            Self::Context => "there is one context",
            Self::Config => "there is one configuration; the inputs are taken by value",
            Self::Inputs => "the inputs are one struct; context and configuration are taken by reference",
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn error(attribute: TokenStream, function: ItemFn) -> String {
        plugin(attribute, &function).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_attribute_is_told_why() {
        let function: ItemFn = parse_quote!(
            fn f(row: Row) -> Out {}
        );
        let of = |attribute| error(attribute, function.clone());
        assert!(of(quote!(version = "1.0.0")).contains("name = \"…\" is missing"));
        assert!(of(quote!(name = "f")).contains("version = \"…\" is missing"));
        assert!(of(quote!(name = "a-b", version = "1.0.0")).contains("letters, digits"));
        assert!(of(quote!(name = "f", version = "1")).contains("MAJOR.MINOR.PATCH"));
        assert!(of(quote!(name = "f", version = "1.0.x")).contains("MAJOR.MINOR.PATCH"));
        assert!(of(quote!(name = "f", version = "1.0.0", by = "batch")).contains("\"row\" or \"columns\""));
        assert!(of(quote!(name = "f", version = 1)).contains("in quotes"));
        assert!(of(quote!(nome = "f")).contains("name, version or by"));
        assert!(plugin(quote!(name = "f", version = "1.0.0-rc.1"), &function).is_ok());
    }

    #[test]
    fn a_function_that_is_no_plugin_is_told_why() {
        let of = |function| error(quote!(name = "f", version = "1.0.0"), function);
        assert!(
            of(parse_quote!(
                fn f() -> Out {}
            ))
            .contains("takes its inputs")
        );
        assert!(
            of(parse_quote!(
                fn f(row: Row) {}
            ))
            .contains("returns its outputs")
        );
        assert!(
            of(parse_quote!(
                fn f(row: Row, other: Row) -> Out {}
            ))
            .contains("one struct")
        );
        assert!(
            of(parse_quote!(
                fn f(a: &A, b: &B, row: Row) -> Out {}
            ))
            .contains("one configuration")
        );
        assert!(
            of(parse_quote!(
                fn f(a: &Context, b: &Context, row: Row) -> Out {}
            ))
            .contains("one context")
        );
        assert!(
            of(parse_quote!(
                async fn f(row: Row) -> Out {}
            ))
            .contains("no async")
        );
        assert!(
            of(parse_quote!(
                fn f<T>(row: T) -> Out {}
            ))
            .contains("lifetimes")
        );
    }

    #[test]
    fn arguments_come_in_any_order() {
        let function: ItemFn = parse_quote!(
            fn f(row: Row<'_>, config: &Limits, context: &larder_plugin::Context) -> Out {}
        );
        let shape = Shape::of(&function).unwrap();
        assert_eq!(shape.arguments, [Argument::Inputs, Argument::Config, Argument::Context]);
        assert!(shape.config.is_some());
    }
}
